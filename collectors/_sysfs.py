"""What collectors of files in /sys and /proc share: reading one value, naming things once, saying why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

from melt_stream.collector import Health
from melt_stream.errors import Transient
from melt_stream.sensor import Files, FileSensor, finder

Key = TypeVar("Key", bound=Hashable)


def text(files: Files, key: str) -> str | None:
    """Return a file's text; None where it is missing, unreadable or empty."""
    try:
        return files[key] or None
    except (KeyError, Transient):
        return None


def integer(files: Files, key: str) -> int | None:
    """Return a file's whole number, exact at any size; None where there is none."""
    try:
        return int(text(files, key) or "")
    except ValueError:
        return None


def integers(lines: str) -> dict[str, int]:
    """Return the numbers of lines such as ``MemTotal:  24684084 kB`` by their names."""
    words = (line.split() for line in lines.splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def why_not(files: Files) -> str:
    """Say why there is no number: the first file that could not be read, else that they hold none."""
    return next((f"{file.path}: {file.reason}" for file in files.unreadable), "they hold no number")


def parts(files: Files, name: str) -> list[str]:
    """Return the parts (zones, chips, supplies) that have a file ``name``, from keys such as ``<part>/<name>``."""
    return [key.removesuffix(f"/{name}") for key in files if key.endswith(f"/{name}")]


def unique(names: Mapping[Key, str]) -> dict[Key, str]:
    """Return the names with ``@<key>`` after each that is not the only one of its kind."""
    seen = Counter(names.values())
    return {key: name if seen[name] == 1 else f"{name}@{key}" for key, name in names.items()}


def health(sensor: FileSensor, what: str, where: str, cure: str) -> Health:
    """Return the sensor's health; where none of its files is there, say that no ``what`` is in the folder ``where``."""
    if not sensor.files(finder(sensor.root)):
        return Health(False, f"no {what} in {PurePosixPath(sensor.root, where)}", cure)
    return FileSensor.check(sensor)

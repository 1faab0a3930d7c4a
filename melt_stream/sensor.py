"""Sensors that are read from files: what to read, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from melt_stream.errors import Transient
from melt_stream.outlet import Row
from melt_stream.stream import Stream

Find = Callable[[str], list[str]]
"""``find("sys/class/hwmon/hwmon*/name")`` returns the paths below the root that match, sorted, without the root."""
Rows = Row | Iterable[Row | tuple[Stream, Row]]
"""One row of the sensor's stream, or several; a row of another stream comes with that stream."""


@dataclass(frozen=True)
class Unreadable:
    """Why a file could not be read."""

    path: str
    reason: str


class Files(Mapping[str, str]):
    """The texts of a sensor's files by key, stripped; asking for one that could not be read raises ``Transient``."""

    def __init__(self, texts: Mapping[str, str | Unreadable]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        text = self._texts[key]
        if isinstance(text, Unreadable):
            raise Transient(f"cannot read {text.path}: {text.reason}")
        return text.strip()

    def __iter__(self) -> Any:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def number(self, key: str, scale: float = 1.0) -> float | None:
        """Return the file's number times ``scale``; None where it is missing, unreadable, empty or not a number."""
        text = self._texts.get(key)
        if not isinstance(text, str):
            return None
        try:
            return float(text) * scale
        except ValueError:
            return None

    @property
    def unreadable(self) -> list[Unreadable]:
        """The files that could not be read."""
        return [text for text in self._texts.values() if isinstance(text, Unreadable)]

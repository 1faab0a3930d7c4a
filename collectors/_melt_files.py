"""Which files a run directory of MELT's labs has, by iteration and conversation, and where below a folder such directories lie."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from melt_stream.collectors._files import folders_below, numbered_lines
from melt_stream.errors import ConfigError, DataError

MEASURED = "melt_measurements"
MONSOON, STAGES, ADB, CONFIGURATION = (
    "measurements_monsoon.csv",
    "measurements_ts.csv",
    "measurements_adb.csv",
    "configuration.json",
)
RESULTS = "results_model_inference_measurements.csv"
"""What MELT's own report wrote."""
MOST = 10_000
"""Files of a run; iterations times conversations."""
DEPTH = 6
_NAME = re.compile(
    r"(measurements|llm_output)_iter(\d{1,6})(_timing)?(?:_conv(\d{1,6}))?(_thermals)?\.(\w{3,4})"
)
_ENERGY = re.compile(r"energy_iter(\d{1,6})\.log")
Key = tuple[int, int]
"""Iteration and conversation."""


@dataclass
class RunFiles:
    """One run directory."""

    path: Path
    phone: bool
    """PhoneLab's: a phone, a controller beside it, a Monsoon. Else JetsonLab's: a board that did everything itself."""
    talks: dict[int, Path] = field(default_factory=dict)
    """What an app wrote of its conversations, by iteration."""
    thermals: dict[int, Path] = field(default_factory=dict)
    energy: dict[int, Path] = field(default_factory=dict)
    events: dict[Key, Path] = field(default_factory=dict)
    """``event ns``, of apps and of llama.cpp."""
    script: dict[Key, Path] = field(default_factory=dict)
    """``start_date,duration,state`` of the expect script."""
    timings: dict[Key, Path] = field(default_factory=dict)
    outputs: dict[Key, Path] = field(default_factory=dict)

    @property
    def keys(self) -> list[Key]:
        """Every conversation that a file is of, in order; those within an app's file are not known here."""
        return sorted(self.events.keys() | self.script.keys() | self.timings.keys() | self.outputs.keys())


def run_files(path: Path) -> RunFiles:
    """Return the files of the one run directory at or below ``path``.

    Raises ``ConfigError`` where there is none, or where there are several: it then says which, and how to import each.
    """
    if _is_run(path):
        return _listed(path)
    if path.name == MEASURED and path.is_dir():
        return _listed(path.parent)
    found = [folder for folder in folders_below(path, DEPTH) if _is_run(folder)]
    if len(found) == 1:
        return _listed(found[0])
    if not found:
        raise ConfigError(
            f"{path}: expected a run directory of PhoneLab or JetsonLab ({MONSOON}, {MEASURED}/, energy_iter0.log), got none "
            f"within {DEPTH} levels; name the directory run_cs..._mgl... or one above it"
        )
    commands = "\n".join(f"  melt-stream import melt {folder}" for folder in found[:50])
    more = f"\n  and {len(found) - 50} more" if len(found) > 50 else ""
    raise ConfigError(
        f"{path}: expected one run directory, got {len(found)}; each is a run of its own:\n{commands}{more}"
    )


def _is_run(folder: Path) -> bool:
    return (
        (folder / MONSOON).is_file()
        or (folder / MEASURED).is_dir()
        or any(True for _ in folder.glob("energy_iter[0-9]*.log"))
    )


def _listed(path: Path) -> RunFiles:
    here = (MONSOON, STAGES, CONFIGURATION, ".t_monsoon")
    found = RunFiles(path, phone=any((path / name).exists() for name in here))
    for file in _within(path):
        if match := _ENERGY.fullmatch(file.name):
            found.energy[int(match[1])] = file
        elif match := _NAME.fullmatch(file.name):
            _put(found, file, match)
    return found


def _within(path: Path) -> Iterator[Path]:
    """Files of the run's own folder and of the measurements', the second one's last: they win."""
    count = 0
    for folder in (path, path / MEASURED):
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            count += 1
            if count > MOST:
                raise DataError(f"{folder}: expected at most {MOST} files of a run, got more")
            yield file


def _put(found: RunFiles, file: Path, match: re.Match[str]) -> None:
    what, iteration, timing, conversation, thermals, kind = match.groups()
    if conversation is None:
        if kind == "json" and what == "measurements" and not timing:
            (found.thermals if thermals else found.talks)[int(iteration)] = file
        return
    key = int(iteration), int(conversation)
    if what == "llm_output":
        found.outputs[key] = file
    elif timing:
        found.timings[key] = file
    elif kind == "tsv" or (kind == "csv" and not _has_header(file)):
        found.events[key] = file
    elif kind == "csv":
        found.script[key] = file


def _has_header(file: Path) -> bool:
    """Tell the expect script's table from an app's events: both have the same name."""
    return next((text.startswith("start_date") for _, text in numbered_lines(file)), False)

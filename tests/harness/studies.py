"""Studies that cost little: commands of a shell, made in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melt_stream.analysis.archive import connect
from melt_stream.analysis.catalogue import outcome_of
from melt_stream.harness.study import Study, conduct, study_of

Run = tuple[str, int, bool, str]
"""Cell, repetition, warm-up, outcome."""
BASE: dict[str, Any] = {
    "collectors": {"cpu": {"hz": 20.0}},
    "workloads": {"command": {"arguments": ["/bin/sh", "-c", "exit 0"]}},
}


def shell(script: str) -> dict[str, Any]:
    """A point at which the workload is this script."""
    return {"workloads.command.arguments": ["/bin/sh", "-c", script]}


def study(table: dict[str, Any], **more: Any) -> Study:
    """A study of a command."""
    return study_of({**BASE, **more, "study": table}, Path("mine.toml"))


@dataclass
class Noting:
    """Notes what it is told."""

    told: list[Run] = field(default_factory=list)
    waits_for: list[str] = field(default_factory=list)

    def sinks(self, _slot, _where) -> Sequence[Any]:
        return []

    def waits(self, slot, _where) -> Sequence[Any]:
        self.waits_for.append(slot.cell.label)
        return []

    def ended(self, slot, _where, entry) -> None:
        self.told.append((slot.cell.label, slot.repetition, slot.warmup, outcome_of(entry)))


def made(one: Study, archive: Path, **how: Any) -> list[Run]:
    """Make what is left of a study; return each run that it took."""
    noting = Noting()
    conduct(one, archive, noting, **how)
    return noting.told


def ask(archive: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask SQL of an archive."""
    return connect(archive, query).sql(query).fetchall()

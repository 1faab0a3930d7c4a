"""What the runs that are left will take: from finished runs of the same cell, else from the recipe, else nobody knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Literal

from melt_stream.analysis.archive import connect
from melt_stream.harness.study.cells import Cell
from melt_stream.harness.study.ledger import Ledger
from melt_stream.harness.study.order import Slot
from melt_stream.run import Run

_ENERGY = """
SELECT r.cell, p.device || ', ' || any_value(p.boundary) || CASE WHEN bool_or(p.estimated) THEN ', estimated' ELSE '' END AS meter,
       sum(p.joules) / count(DISTINCT p.run) AS joules
FROM phases p JOIN runs r USING (run) WHERE p.joules IS NOT NULL GROUP BY r.cell, p.device
"""


@dataclass(frozen=True)
class Expected:
    """What one run of a cell will take; None where nobody knows."""

    seconds: float | None = None
    source: Literal["measured", "fixed", "unknown"] = "unknown"
    """Where ``seconds`` come from: finished runs of the cell, or the recipe, which says how long a run without workloads takes."""
    at_most_s: float | None = None
    """A limit that the recipe or the study sets; the wait before the run is not in it."""
    joules: Mapping[str, float] = field(default_factory=dict)
    """By device and boundary, as the finished runs measured; empty where nothing is known."""
    bytes: float | None = None
    """On disk, packed."""


def expectations(cells: Sequence[Cell], book: Ledger) -> dict[str, Expected]:
    """Return what a run of each cell will take, by the cells' ids."""
    paths = {cell.id: book.runs(cell.id) for cell in cells}
    joules = _joules([path for some in paths.values() for path in some])
    return {
        cell.id: Expected(
            *seconds_of(cell, book),
            at_most(cell),
            joules.get(cell.id, {}),
            fmean(map(_bytes, paths[cell.id])) if paths[cell.id] else None,
        )
        for cell in cells
    }


def seconds_of(cell: Cell, book: Ledger) -> tuple[float | None, Literal["measured", "fixed", "unknown"]]:
    """Return how long a run of a cell takes, with the wait before it, and how that is known."""
    if measured := book.seconds.get(cell.id):
        return fmean(measured), "measured"
    seconds = cell.configuration.get("seconds")
    if seconds is not None and not cell.configuration.get("workloads"):
        return float(seconds) + cell.rules.wait(cell.where).seconds, "fixed"
    return None, "unknown"


def at_most(cell: Cell) -> float | None:
    """Return the time after which a run of a cell is ended, if there is one."""
    limits = [limit for limit in (cell.rules.timeout_s, cell.configuration.get("seconds")) if limit]
    return min(limits, default=None)


def time_left(slots: Iterable[Slot], book: Ledger) -> float | None:
    """Return how long these runs will take: for a cell without a finished run, as long as the study's others on average."""
    others = [fmean(some) for some in book.seconds.values() if some]
    total = 0.0
    for slot in slots:
        seconds, _ = seconds_of(slot.cell, book)
        if seconds is None:
            if not others:
                return None
            seconds = fmean(others)
        total += seconds
    return total


def _joules(paths: Sequence[str]) -> dict[str, dict[str, float]]:
    if not paths:
        return {}
    made: dict[str, dict[str, float]] = {}
    for cell, meter, joules in connect([Run(Path(path)) for path in paths], _ENERGY).sql(_ENERGY).fetchall():
        made.setdefault(cell, {})[meter] = joules
    return made


def _bytes(path: str) -> int:
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())

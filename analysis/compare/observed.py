"""The values of one side of a comparison: a metric has one of each repetition, which is a run, or a request where runs are few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.phase_rows import Derived, Row, rows_of
from melt_stream.errors import Inconclusive
from melt_stream.run import Run

COLUMNS = {
    "j_per_token": "joules_per_token", "j_per_request": "joules_per_request", "mwh_per_token": "mwh_per_token", "joules": "joules", "net_joules": "net_joules",
    "mean_w": "mean_w", "tokens_per_s": "tokens_per_s", "ttft_s": "ttft_s", "itl_p50_s": "itl_p50_s",
    "itl_p95_s": "itl_p95_s", "seconds": "duration_s",
}  # fmt: skip
"""The second word of a metric's name, and the column of ``phase_rows.Row`` that it is; the first word is the phase."""
ENERGY = frozenset({"j_per_token", "j_per_request", "mwh_per_token", "joules", "net_joules", "mean_w"})
OF_REQUESTS = frozenset({"queue", "prefill", "decode", "request", "window"})
Key = tuple[Any, ...]


class Observation(NamedTuple):
    """What one repetition gave."""

    key: Key | None
    """Goes with that of the same key on the other side; None: with none."""
    rows: Mapping[str, Row]
    """By phase."""


class Kept:
    """A run whose tables are read once."""

    def __init__(self, run: Run) -> None:
        self.id, self.run, self._tables = run.id, run, dict[str, pa.Table]()

    def table(self, key: str, columns: list[str] | None = None) -> pa.Table:
        """Return a derived table, or some of its columns."""
        if key not in self._tables:
            self._tables[key] = self.run.table(key)
        table = self._tables[key]
        return table if columns is None else table.select(columns)


@dataclass(frozen=True)
class Side:
    """Some runs under one name, of one device."""

    name: str
    device: str
    kept: tuple[Kept, ...] = field(repr=False)
    by_run: tuple[Observation, ...] = field(repr=False)

    @property
    def runs(self) -> tuple[Run, ...]:
        """In the order in which they were given."""
        return tuple(one.run for one in self.kept)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``phases`` of its device, of all runs, each with its run's id."""
        return [
            {**row, "run": one.id}
            for one in self.kept
            for row in one.table("phases").to_pylist()
            if row["device"] == self.device
        ]

    @cached_property
    def by_request(self) -> tuple[Observation, ...]:
        """An observation a request that is no warm-up; requests of the same name are told apart by their order."""
        return tuple(one for kept in self.kept for one in _by_request(kept, self.device))

    @property
    def accounts(self) -> set[tuple[str, bool]]:
        """The boundaries at which its energy was measured, each with whether it was estimated."""
        rows = [row for one in self.by_run for row in one.rows.values()]
        return {(row.boundary, row.estimated) for row in rows if row.boundary is not None}

    @property
    def phases(self) -> list[str]:
        """The phases that any of its runs has."""
        return list(dict.fromkeys(phase for one in self.by_run for phase in one.rows))


def value(one: Observation, metric: str) -> float | None:
    """Return a metric ``<phase>.<column>`` of an observation; None where it is not known."""
    phase, _, column = metric.rpartition(".")
    row = one.rows.get(phase)
    found: float | None = None if row is None else getattr(row, COLUMNS[column])
    return found


def side(name: str, runs: Sequence[Run], device: str | None = None, keys: Sequence[Key | None] = ()) -> Side:
    """Make a side of packed runs; ``keys`` say which of them goes with which of the other side.

    Raises ``Inconclusive`` where there is no run, or several devices and none is named.
    """
    if not runs:
        raise Inconclusive(f"{name}: expected runs to compare, got none")
    kept = tuple(map(Kept, runs))
    rows = [rows_of(one) for one in kept]
    devices = sorted({row.device for listed in rows for row in listed})
    if device is None and len(devices) != 1:
        raise Inconclusive(
            f"{name}: expected one device, got {', '.join(devices) or 'none'}; choose one with --device"
        )
    chosen = devices[0] if device is None else device
    if chosen not in devices:
        raise Inconclusive(f"{name}: expected one of the devices {', '.join(devices)}, got {chosen!r}")
    known = keys or [None] * len(kept)
    by_run = (Observation(key, _by_phase(listed, chosen)) for key, listed in zip(known, rows, strict=True))
    return Side(name, chosen, kept, tuple(by_run))


def _by_phase(rows: Iterable[Row], device: str) -> dict[str, Row]:
    return {row.name or row.phase: row for row in rows if row.device == device}


def study_keys(sides: Sequence[Sequence[Run]]) -> list[list[Key | None]]:
    """Return keys by which runs of one study are pairs: the points of the axes that the sides do not differ in, and the repetition.

    An axis is what the sides differ in where its points are not the same on all of them. No keys where a run is of no study, or
    where two runs of a side would have the same.
    """
    told = [[run.manifest.study for run in side] for side in sides]
    if len({one.get("name") for side in told for one in side}) != 1 or not all(
        one for side in told for one in side
    ):
        return [[None] * len(side) for side in sides]
    axes = sorted({axis for side in told for one in side for axis in one["points"]})
    common = [a for a in axes if len({frozenset(one["points"].get(a) for one in side) for side in told}) == 1]
    keys = [[(*(one["points"].get(a) for a in common), one["repetition"]) for one in side] for side in told]
    if any(len(set(side)) < len(side) for side in keys):
        return [[None] * len(side) for side in sides]
    return [list(side) for side in keys]


@dataclass(frozen=True)
class _OneRequest:
    """A run as if it had this request alone."""

    run: Derived
    request: int

    @property
    def id(self) -> str:
        return self.run.id

    def table(self, key: str, columns: list[str] | None = None) -> pa.Table:
        table = self.run.table(key, columns)
        if key == "factors":
            return table
        return table.filter(pc.equal(table["request"], self.request))


def _by_request(kept: Kept, device: str) -> list[Observation]:
    seen, found = Counter[str](), []
    told = kept.table("requests").sort_by("request").to_pylist()
    for asked in told:
        if asked["warmup"] or asked["error"] or asked["request"] is None:
            continue
        name = asked["name"] or ""
        seen[name] += 1
        rows = _by_phase(rows_of(_OneRequest(kept, asked["request"])), device)
        phases = {phase: row for phase, row in rows.items() if phase in OF_REQUESTS}
        found.append(Observation((name, seen[name]), phases))
    return found

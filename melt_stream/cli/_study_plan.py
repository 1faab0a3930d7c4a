"""What a study has left to do, and what that will take: the rows of ``--plan`` and their sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melt_stream.harness.study import Cell, Expected, Ledger, Slot

UNKNOWN = "unknown"
_MB = 1e6


@dataclass
class Totals:
    """The sum over the runs to do; what is unknown of some is told, never taken for zero."""

    runs: int = 0
    seconds: float = 0.0
    without_seconds: int = 0
    """Runs of which nobody knows how long they take."""
    joules: dict[str, float] = field(default_factory=dict)
    """By device and boundary: they are never added to each other."""
    without_joules: int = 0
    bytes: float = 0.0
    without_bytes: int = 0

    @property
    def said(self) -> dict[str, Any]:
        """For JSON: null where it is not known of every run."""
        return {
            "runs": self.runs,
            "seconds": None if self.without_seconds else self.seconds,
            "joules": None if self.without_joules else self.joules,
            "bytes": None if self.without_bytes else self.bytes,
        }

    @property
    def text(self) -> str:
        """For people."""
        energy = " + ".join(f"{joules:.3g} J ({meter})" for meter, joules in self.joules.items())
        parts = (
            ("time", duration(self.seconds), self.without_seconds),
            ("energy", energy, self.without_joules),
            ("disk", f"{self.bytes / _MB:.3g} MB", self.without_bytes),
        )
        expected = "; ".join(f"{name} {_known(text, without, self.runs)}" for name, text, without in parts)
        return f"{self.runs} runs to do" + (f"; expected: {expected}" if self.runs else "")


def totals(rows: Sequence[Mapping[str, Any]]) -> Totals:
    """Return the sum of the rows of a plan."""
    made = Totals()
    for row in rows:
        runs = row["to_do"]
        made.runs += runs
        if row["seconds"] is None:
            made.without_seconds += runs
        made.seconds += runs * (row["seconds"] or 0.0)
        if not row["joules"]:
            made.without_joules += runs
        for meter, joules in row["joules"].items():
            made.joules[meter] = made.joules.get(meter, 0.0) + runs * joules
        if row["bytes"] is None:
            made.without_bytes += runs
        made.bytes += runs * (row["bytes"] or 0.0)
    return made


def rows_of_plan(
    cells: Sequence[Cell], wanted: Sequence[Slot], book: Ledger, expected: Mapping[str, Expected]
) -> list[dict[str, Any]]:
    """Return one row a cell: its runs by state, and what one takes; ``words`` has that for people."""
    states = {cell.id: Counter[str]() for cell in cells}
    for slot in wanted:
        states[slot.cell.id][book.state(slot)] += 1
    return [_row(cell, states[cell.id], expected[cell.id]) for cell in cells]


def duration(seconds: float) -> str:
    """``8.2 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _row(cell: Cell, states: Counter[str], expected: Expected) -> dict[str, Any]:
    joules = [f"{joules:.3g} J ({meter})" for meter, joules in expected.joules.items()]
    return {
        "cell": cell.id, "points": cell.points,
        **{state.replace(" ", "_"): states[state] for state in ("to do", "done", "failed", "skipped")},
        "seconds": expected.seconds, "seconds_from": expected.source, "at_most_s": expected.at_most_s,
        "joules": dict(expected.joules), "bytes": expected.bytes,
        "words": {
            "time": _time(expected),
            "energy": ", ".join(joules) or UNKNOWN,
            "disk": UNKNOWN if expected.bytes is None else f"{expected.bytes / _MB:.3g} MB",
        },
    }  # fmt: skip


def _time(expected: Expected) -> str:
    if expected.seconds is not None:
        return f"{duration(expected.seconds)}, {expected.source}"
    return UNKNOWN if expected.at_most_s is None else f"{UNKNOWN}, at most {duration(expected.at_most_s)}"


def _known(text: str, without: int, runs: int) -> str:
    if without == runs:
        return UNKNOWN
    return f"{text}, and {UNKNOWN} for {without} of them" if without else text

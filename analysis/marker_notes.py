"""What a run's markers say, in sentences: warnings where they contradict a clock, notes where they do not."""

from __future__ import annotations

from typing import Any

from melt_stream.analysis.marked import LOUD
from melt_stream.analysis.phase_rows import Derived
from melt_stream.errors import ConfigError

Row = dict[str, Any]


def rows(run: Derived) -> list[Row]:
    """Return the rows of the table ``markers``; none for a run that was packed before there was one."""
    try:
        found: list[Row] = run.table("markers").to_pylist()
    except ConfigError:  # says that the run has no such table
        return []
    return found


def warnings(run: Derived) -> list[str]:
    """Return a sentence for each marker that contradicts the readings of a rail's clock."""
    return [_warning(row) for row in rows(run) if row["verdict"] in LOUD]


def notes(run: Derived) -> list[str]:
    """Return a sentence for the markers that agree, and one for those that were not found."""
    of = rows(run)
    good = [row for row in of if row["verdict"] == "agrees"]
    missed = [f"{_rail(row)} ({_play(row)})" for row in of if row["verdict"] == "not found"]
    alone = [f"{_rail(row)} ({_play(row)})" for row in of if row["verdict"] == "alone"]
    said = []
    if good:
        seen = ", ".join(
            f"{_rail(row)} {row['lag_ns'] / 1e6:.1f} ± {row['u_ns'] / 1e6:.1f} ms" for row in good
        )
        said.append(f"Markers agree with the clocks' readings; power answered the command after: {seen}.")
    if alone:
        said.append(f"Only markers tie these rails' clocks to the host's: {', '.join(alone)}.")
    if missed:
        said.append(f"Markers were not found in {', '.join(missed)}: these clocks are not cross-checked.")
    return said


def _warning(row: Row) -> str:
    lag, u = row["lag_ns"] / 1e6, row["u_ns"] / 1e6
    if row["verdict"] == "early":
        return (
            f"CLOCKS DISAGREE: {_rail(row)} shows {_play(row)} {-lag:.1f} ± {u:.1f} ms before it was played, more than its "
            "clock's bound allows: joules of phases and tokens of this rail may be wrong beyond joules_lo and joules_hi."
        )
    return (
        f"CLOCKS MAY DISAGREE: {_rail(row)} shows {_play(row)} {lag:.1f} ± {u:.1f} ms after it was played, more than its "
        "clock's bound and a usual delay explain: it averages or lags, or its clock is off; joules of short phases are late by as much."
    )


def _rail(row: Row) -> str:
    return f"{row['sensor']}/{row['rail']}"


def _play(row: Row) -> str:
    return f"marker {row['play'] + 1}"

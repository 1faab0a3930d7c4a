"""What the phases of a request cost on all the devices that it involves together, where that is one answer.

Joules of several devices are added only where they were measured at the same boundary (the wall's and a battery's are two answers), and
only where every part is known. Their uncertainty is that of any set of rows (``uncertainty``): gains and clocks of each device are its own,
an edge that both were cut at moves for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from melt_stream.analysis.quality import ENOUGH, FLAGS, QUALITIES
from melt_stream.analysis.schemas import build
from melt_stream.analysis.uncertainty import joules_u_of

Row = dict[str, Any]


def together(phases: pa.Table, factors: pa.Table) -> pa.Table:
    """The table ``together``, of the tables ``phases`` and ``factors``: one row a phase of a request on several devices."""
    groups = list(shared(phases.to_pylist()).values())
    common, own = _by_request(factors)
    rows = [_sum(group, pa.concat_tables([common, *own.get(group[0]["request"], [])])) for group in groups]
    names = build("together", {}, 0).schema.names
    return build("together", {name: [row[name] for row in rows] for name in names}, len(rows))


def shared(phases: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of ``phases`` that several devices have of one phase of a request, by that phase."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in phases:
        if row["request"] is not None:
            key = tuple(row[name] for name in ("request", "phase", "name", "start_ns", "stop_ns"))
            groups.setdefault(key, []).append(row)
    return {key: rows for key, rows in groups.items() if len({row["device"] for row in rows}) > 1}


def one_boundary(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The boundary that all rows have; None where they have several, or any has none."""
    found = {row["boundary"] for row in rows}
    return found.pop() if len(found) == 1 else None


def _by_request(factors: pa.Table) -> tuple[pa.Table, dict[int, list[pa.Table]]]:
    """Factors of every request, and those of one alone: there are many of these, and each is for few rows."""
    requests = factors["request"].to_pylist()
    own: dict[int, list[pa.Table]] = {}
    for at, request in enumerate(requests):
        if request is not None:
            own.setdefault(request, []).append(factors.slice(at, 1))
    return factors.filter(pa.array([request is None for request in requests], pa.bool_())), own


def _sum(rows: Sequence[Row], factors: pa.Table) -> Row:
    boundary, first = one_boundary(rows), rows[0]
    added = boundary is not None and all(row["joules"] is not None for row in rows)
    net = _all(row["net_joules"] for row in rows) if added else None
    coverage = min(row["coverage"] or 0.0 for row in rows)
    enough = added and coverage >= ENOUGH
    return {
        **{name: first[name] for name in ("run", "request", "phase", "name", "start_ns", "stop_ns", "tokens")},
        "devices": sorted(row["device"] for row in rows), "boundary": boundary,
        "mean_w": _all(row["mean_w"] for row in rows) if enough else None,
        "joules_per_token": _all(row["joules_per_token"] for row in rows) if enough else None,
        "estimated": any(row["estimated"] for row in rows),
        "joules": _all(row["joules"] for row in rows) if added else None,
        "joules_u": joules_u_of(rows, factors) if added else None,
        "net_joules": net,
        "net_joules_u": None if net is None else joules_u_of(rows, factors, "net_joules"),
        "coverage": coverage,
        "quality": max((row["quality"] for row in rows), key=QUALITIES.index),
        "flags": [flag for flag in FLAGS if any(flag in (row["flags"] or ()) for row in rows)],
    }  # fmt: skip


def _all(values: Iterable[float | None]) -> float | None:
    """The sum, where everything is known."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    return math.fsum(known) if len(known) == len(listed) else None

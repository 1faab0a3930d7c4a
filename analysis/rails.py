"""From the spilled numbers of a rail to its running joules, row by row of its stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.between import running
from melt_stream.analysis.integrate import RailData
from melt_stream.analysis.spill import Part, Spilled


class Energy:
    """Running joules and covered time of one rail; null in rows that hold no measurement."""

    def __init__(
        self, joules: np.ndarray[Any, Any], covered_ns: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]
    ) -> None:
        self._columns = joules, covered_ns
        self._kept = None if kept.all() else kept
        self._before = None if self._kept is None else np.concatenate([[0], np.cumsum(kept)])

    def cut(self, start: int, stop: int) -> list[pa.Array]:
        """Return both columns for rows ``start`` to ``stop`` of the rail."""
        if self._kept is None or self._before is None:
            return [pa.array(column[start:stop]) for column in self._columns]
        kept, low, high = self._kept[start:stop], self._before[start], self._before[stop]
        return [_spread(column[low:high], kept) for column in self._columns]


def rail_data(spilled: Spilled, part: Part, rails: list[dict[str, Any]]) -> RailData:
    """Return a rail's samples in the order of their ticks, epoch by epoch."""
    assert part.numbers is not None
    numbers, meta = part.numbers, spilled.meta
    tick, epoch, t_u = (numbers.array(name) for name in ("tick", "epoch", "t_u"))
    assert tick is not None
    values = {name: column for name in numbers.values if (column := numbers.array(name)) is not None}
    part.order = order = _order(tick, epoch)
    if order is not None:
        tick = tick[order]
        epoch, t_u = (None if a is None else a[order] for a in (epoch, t_u))
        values = {name: column[order] for name, column in values.items()}
    units = {name: (spilled.schema.field(name).metadata or {}).get(b"unit", b"").decode() for name in values}
    facts = next(r for r in rails if r["sensor_of"] == spilled.key and r["name"] == part.rail)
    period = facts["sample_period_ns"]
    return RailData(
        facts, spilled.clock, float(meta.get("tick_ns") or 1), period, tick, epoch, t_u, values, units
    )


def energy(part: Part, data: RailData, gaps: pa.Table) -> Energy:
    """Return the running joules of a rail for each row of its stream."""
    assert part.numbers is not None
    joules, covered_ns = running(data, gaps)
    if part.order is not None:
        back = np.argsort(part.order)
        joules, covered_ns = joules[back], covered_ns[back]
    kept = part.numbers.array("kept")
    return Energy(joules, covered_ns, np.empty(0, bool) if kept is None else kept)


def _order(tick: np.ndarray[Any, Any], epoch: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any] | None:
    """The order by epoch and tick; None where rows came in it."""
    later = (
        np.diff(tick) >= 0
        if epoch is None
        else (np.diff(epoch) > 0) | ((np.diff(epoch) == 0) & (np.diff(tick) >= 0))
    )
    if later.all():
        return None
    return np.argsort(tick, kind="stable") if epoch is None else np.lexsort((tick, epoch))


def _spread(column: np.ndarray[Any, Any], kept: np.ndarray[Any, Any]) -> pa.Array:
    full = np.zeros(len(kept), column.dtype)
    full[kept] = column
    return pa.array(full, mask=~kept)

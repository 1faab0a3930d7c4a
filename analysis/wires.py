"""Logic inputs that a marker may be played on: streams of the role ``logic``, a row each time an input changes its ``level``.

A stream holds one input, or several, told apart by ``pin``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.integrate import Pieces
from melt_stream.analysis.markers import Code, Found
from melt_stream.clock import HOST

Array = np.ndarray[Any, Any]
AFTER_S = 60.0
"""The last level is taken to have lasted so long: nothing tells when it was last looked at."""
WINDOW_S = 1e-4
LEAST_EDGES = 8
NO_PIN = -1


@dataclass(frozen=True)
class Wire:
    """One input in one epoch of its clock."""

    sensor: str
    name: str
    """``pin 3``, or the stream's where it is the only one."""
    device: str
    clock: str
    tick_ns: float
    made: Pieces
    """Its level, as if it were watts."""


def wires(streams: Sequence[pa.Table]) -> Iterator[Wire]:
    """Yield each input of ``streams`` that changed at least once, by epoch."""
    for table in streams:
        meta = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        stream, tick_ns = meta.get("stream", ""), float(meta.get("tick_ns") or 1.0)
        tick, level = table["tick"].to_numpy(), table["level"].to_numpy(zero_copy_only=False)
        epochs, pins = _numbers(table, "epoch", 0), _numbers(table, "pin", NO_PIN)
        for epoch, pin in np.unique(np.column_stack([epochs, pins]), axis=0).tolist():
            mine = (epochs == epoch) & (pins == pin)
            if np.count_nonzero(mine) > 1:
                yield Wire(
                    f"{meta.get('instance', '')}.{stream}", stream if pin == NO_PIN else f"pin {pin}",
                    meta.get("device") or "host", meta.get("clock") or HOST.name, tick_ns,
                    _pieces(epoch, tick[mine], level[mine], tick_ns),
                )  # fmt: skip


def _numbers(table: pa.Table, name: str, otherwise: int) -> Array:
    if name not in table.column_names:
        return np.full(len(table), otherwise)
    return np.asarray(table[name].to_numpy().astype(np.int64))


def sampled(made: Pieces) -> tuple[Array, Array]:
    """Return the ends of windows of ``WINDOW_S`` (s since ``tick0``), and the mean level of each: edges lose nothing by it."""
    if not len(made.left):
        return np.zeros(0), np.zeros(0)
    bounds = (np.append(made.left, made.right[-1:]) - made.base) * made.unit_s
    running = np.concatenate([[0.0], np.cumsum(made.p0 * np.diff(bounds))])
    ends = np.arange(bounds[0], bounds[-1], WINDOW_S)
    return ends, np.diff(np.interp(ends, bounds, running)) / WINDOW_S


def refined(code: Code, made: Pieces, found: Found) -> Found:
    """Return what was found with the onset that the edges tell, each by itself: a line through how late they are.

    The line's slope is the difference of the two clocks' rates, which the search knows nothing of.
    """
    edges = (made.left - made.base) * made.unit_s
    wanted = code.seconds + found.onset_s
    near = np.clip(np.searchsorted(edges, wanted), 1, len(edges) - 1)
    near -= wanted - edges[near - 1] < edges[near] - wanted
    off = edges[near] - wanted
    good = np.abs(off) < code.chip_s / 2
    at, off = code.seconds[good], off[good]
    if len(at) < LEAST_EDGES:
        return found
    middle = float(np.mean(at))
    slope = float((at - middle) @ off / ((at - middle) @ (at - middle)))
    late = float(np.mean(off)) - slope * middle
    spread = np.std(off - late - slope * at, ddof=2) + made.unit_s
    return replace(found, onset_s=found.onset_s + late, u_s=float(spread) / math.sqrt(len(at)))


def _pieces(epoch: int, tick: Array, level: Array, tick_ns: float) -> Pieces:
    since = tick - tick[0]
    ends = np.append(since[1:], since[-1] + round(AFTER_S * 1e9 / tick_ns))
    power = level.astype(np.float64)
    return Pieces(epoch, int(tick[0]), 1, tick_ns * 1e-9, since, ends, power, power, float(np.inf), 0)

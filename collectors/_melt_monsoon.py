"""PhoneLab's trace: PyMonsoon's samples on the clock that it counts by, and MELT's rule over them as MELT takes the times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from melt_stream.collectors._files import optional_lines, seconds_to_ns
from melt_stream.collectors._melt_clocks import MONSOON, monsoon_readings
from melt_stream.collectors._melt_rule import Rule, Window
from melt_stream.collectors._monsoon_csv import ANCHORS_S, SAMPLE_S, Spread
from melt_stream.collectors._trace_csv import Block, read_head
from melt_stream.collectors._trace_rows import Array, Trace, to_ns
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V

SIDE = ".t_monsoon"
NS = 1_000_000_000


def monsoon_start(trace: Path) -> int | None:
    """Return what ``.t_monsoon`` beside a trace says, ns since 1970; None where it is absent or empty."""
    side = trace.with_name(SIDE)
    for number, text in optional_lines(side):
        if text.strip():
            return seconds_to_ns(text.strip(), f"{side}, line {number}")
    return None


async def import_monsoon(
    out: Outlet, path: Path, began: int | None, base: int, windows: Sequence[Window], boundary: Boundary
) -> Rule:
    """Write the trace and what ties it to the host; return the sums of MELT's rule, over nothing where ``began`` is not known.

    Raises ``DataError`` with the line where the file is damaged or no trace of MELT's rig.
    """
    table = read_head(path)
    if table.names or table.columns != 3:
        got = ", ".join(table.names) or f"{table.columns} columns"
        raise DataError(f"{path}, line 1: expected s, mA and V without a header, got {got[:200]}")
    rule = Rule(windows)
    meter: _Meter | None = None
    for block in table.blocks([0, 1, 2]):
        meter = meter or _Meter(out, path, block, boundary)
        meter.add(block)
        if began is not None:
            stamps, milliamps, volts = block.values.T
            rule.feed(stamps + began / NS, milliamps, volts)
        await out.room()
    if meter is None:
        raise DataError(f"{path}: expected lines of numbers, got none")
    meter.finish()
    if began is not None:
        for reading in monsoon_readings(began - base, meter.first, meter.last, meter.late):
            out.clock_reading(reading)
    else:
        out.fact(
            "monsoon_place",
            f"nowhere: no {SIDE} beside the trace says when it began; its energy has no place",
        )
    out.fact(
        "monsoon_shift_s", {"late_by_at_most": meter.first / NS, "stamps_apart_by_at_most": meter.late / NS}
    )
    return rule


class _Meter:
    """The stream of one trace."""

    def __init__(self, out: Outlet, path: Path, first: Block, boundary: Boundary) -> None:
        stamps = first.values[:, 0]
        period = _period(stamps)
        kind = pa.float32()
        stream = Stream(
            "main", clock=MONSOON, period_ns=period * NS, volts=Column(V, kind), amps=Column(A, kind)
        )
        source = "Monsoon through PyMonsoon; the files name neither the model nor its accuracy"
        out.rail(stream, Rail("main", boundary, "gauge", instrument="meter", source=source))
        self.path, self.spread, self.trace = path, Spread(period), Trace(out, stream, path)
        self.first = int(to_ns(stamps[:1], path, first.line)[0])
        self.last, self.late = self.first, 0

    def add(self, block: Block) -> None:
        stamps = to_ns(block.values[:, 0], self.path, block.line)  # refuses what goes back
        if not len(stamps):
            return
        if stamps[0] < self.last:
            raise DataError(
                f"{self.path}, line {block.line}: expected times that never decrease, got {stamps[0] / NS} s after {self.last / NS} s"
            )
        steps = np.diff(stamps, prepend=self.last)
        steps = steps[steps < ANCHORS_S * NS]
        self.late = max(self.late, int(steps.max())) if len(steps) else self.late
        self.last = int(stamps[-1])
        for placed in self.spread.feed(block.values[:, 0], block.values[:, 1:]):
            self._write(placed.seconds, placed.values, block.line)

    def finish(self) -> None:
        for placed in self.spread.finish():
            self._write(placed.seconds, placed.values, 0)

    def _write(self, seconds: Array, values: Array, line: int) -> None:
        columns = {"amps": values[:, 0] * 1e-3, "volts": values[:, 1]}
        self.trace.add(to_ns(seconds, self.path, line), columns, line)


def _period(stamps: Array) -> float:
    """The time between samples in s, as a whole number of the box's: PyMonsoon throws some away between its rounds."""
    if len(stamps) < 2 or not stamps[-1] > stamps[0]:
        return SAMPLE_S
    mean = float(stamps[-1] - stamps[0]) / (len(stamps) - 1)
    return SAMPLE_S * max(1, round(min(mean, 1e6) / SAMPLE_S))

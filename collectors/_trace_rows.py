"""A recorded trace into rows: times that never decrease, cells without a number null, holes told as gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

Array = np.ndarray[Any, Any]
HOLE = 1.5
"""A step of more periods than this has samples missing."""
MOST = 1e6
"""No meter shows so many volts, amperes or watts: a digit or an exponent is wrong."""
LAST_S = 9e9
"""Times fit in int64 nanoseconds."""


def to_ns(seconds: Array, path: Path, line: int) -> Array:
    """Return seconds as int64 ns. Raises ``DataError`` where one is no time, or they decrease."""
    bad = ~(np.abs(seconds) < LAST_S)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{path}, about line {line + row}: expected a time in seconds, got {float(seconds[row])!r}"
        )
    back = np.flatnonzero(np.diff(seconds) < 0)
    if len(back):
        row = int(back[0]) + 1
        raise DataError(
            f"{path}, about line {line + row}: expected times that never decrease, got {float(seconds[row])!r} after "
            f"{float(seconds[row - 1])!r}; was the clock set? Split the file there"
        )
    whole = np.floor(seconds)
    ns: Array = whole.astype(np.int64) * 10**9 + np.rint((seconds - whole) * 1e9).astype(np.int64)
    return ns


@dataclass
class Trace:
    """Writes one stream whose rows come every ``period_ns``."""

    out: Outlet
    stream: Stream
    path: Path
    last: int | None = None
    rows: int = 0

    def add(self, tick: Array, columns: Mapping[str, Array], line: int, missing: Array | None = None) -> None:
        """Write rows at ``tick`` (ns): a float32 column each, NaN for what was not measured; ``missing`` rows are none at all.

        Raises ``DataError`` where the first comes before the last one of before, and for a value that no meter shows.
        """
        if not len(tick):
            return
        for name, column in columns.items():
            if (wild := np.abs(column) > MOST).any():
                row = int(np.argmax(wild))
                raise DataError(
                    f"{self.path}, about line {line + row}: expected {name} up to {MOST:g}, got {float(column[row])!r}"
                )
        if self.last is not None and tick[0] < self.last:
            raise DataError(
                f"{self.path}, about line {line}: expected times that never decrease, got one {self.last - tick[0]} ns earlier"
            )
        there = ~missing if missing is not None else np.ones(len(tick), bool)
        if not there.any():
            return
        tick, period = tick[there], self.stream.period_ns
        before = tick[0] if self.last is None else self.last
        steps = np.diff(tick, prepend=before)
        starts = np.concatenate(([before], tick[:-1]))
        holes = np.flatnonzero(steps > HOLE * period).tolist() if period else []
        written = 0
        for hole in [*holes, len(tick)]:
            self._rows(tick, columns, there, written, hole)
            if hole < len(tick) and period:
                lost = max(1, round(int(steps[hole]) / period) - 1)
                start, stop = int(starts[hole] + period), int(tick[hole])
                self.out.gap(self.stream, start, stop, "samples are missing in the file", lost=lost)
            written = hole
        self.last = int(tick[-1])

    def _rows(self, tick: Array, columns: Mapping[str, Array], there: Array, start: int, stop: int) -> None:
        if stop > start:
            part = slice(start, stop)
            cut: dict[str, Any] = {}
            for name, column in columns.items():
                values = column[there][part].astype(np.float32)
                cut[name] = pa.array(values, mask=~np.isfinite(values))
            self.out.rows(self.stream, tick=tick[part], **cut)
            self.rows += stop - start

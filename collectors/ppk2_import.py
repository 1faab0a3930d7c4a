"""Importer ``ppk2``: what the nRF Connect Power Profiler saves (``.ppk2``) and exports (CSV) of a PPK2's measurement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Gt

from melt_stream.collectors._ppk2_files import LOST, open_session
from melt_stream.collectors._trace_csv import read_head
from melt_stream.collectors._trace_rows import Array, Trace, to_ns
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V

PINS = 8
LEVELS: tuple[int | None, ...] = (None, 0, 1, None)
"""Of a pair of bits: none is known, low, high, both within an averaged sample."""
CSV_LOST = 0.2
FULL_HZ = 100_000.0
TIME, CURRENT = (
    re.compile(r"timestamp ?\((ms)\)", re.IGNORECASE),
    re.compile(r"current ?\(([unm\u00b5]?A)\)", re.IGNORECASE),
)
LOGIC = Stream("logic", pin=int, level=int)


@dataclass
class Ppk2Import:
    """Read one file to its end. Neither kind says the voltage: without ``volts`` there are amperes, but no power.

    Raises ``DataError`` with the byte or line where it is damaged.
    """

    path: Path
    """A ``.ppk2``, or a CSV export."""
    _: KW_ONLY
    volts: Annotated[float, Gt(0)] | None = None
    """What supplied the device, in V."""
    boundary: Boundary = "battery"
    """What was supplied."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        lines = [f"{k / 100},{100 + k}.5,01010101" for k in range(30)]
        return {
            "kind": "files",
            "tree": {"ppk.csv": "\n".join(["Timestamp(ms),Current(uA),D0-D7", *lines, ""])},
            "config": {"volts": 3.7},
        }

    async def collect(self, out: Outlet) -> None:
        path = Path(self.path)
        if path.suffix == ".ppk2":
            await self._session(out, path)
        else:
            await self._csv(out, path)
        out.fact("volts", self.volts)
        out.ready()

    async def _session(self, out: Outlet, path: Path) -> None:
        with open_session(path) as session:
            self.start_utc_ns = session.start_utc_ns
            trace, pins = self._trace(out, path, 1e9 / session.hz, session.hz == FULL_HZ), _Pins(out)
            count = 0
            for frames in session.frames:
                tick = np.rint((count + np.arange(len(frames))) * (1e9 / session.hz)).astype(np.int64)
                microamps = frames["microamps"]
                self._add(trace, tick, microamps.astype(np.float64), microamps == LOST, 0)
                pins.add(tick, frames["bits"].astype(np.int64))
                count += len(frames)
                await out.room()
        if not trace.rows:
            raise DataError(f"{path}: expected samples in it, got none")
        out.fact("samples_per_second", session.hz)

    async def _csv(self, out: Outlet, path: Path) -> None:
        table = read_head(path)
        times = [k for k, name in enumerate(table.names) if TIME.fullmatch(name)]
        currents = [(k, m[1]) for k, name in enumerate(table.names) if (m := CURRENT.fullmatch(name))]
        if not times or not currents:
            raise DataError(
                f"{table.path}, line 1: expected the columns Timestamp(ms) and Current(uA), "
                f"got {', '.join(table.names) or 'no header'}; export them both"
            )
        column, unit = currents[0]
        factor = {"ua": 1.0, "\u00b5a": 1.0, "na": 1e-3, "ma": 1e3, "a": 1e6}[unit.lower()]
        trace: Trace | None = None
        zero = 0
        for line, values in table.blocks([times[0], column]):
            seconds, microamps = values[:, 0] / 1000, values[:, 1] * factor
            tick = to_ns(seconds, table.path, line)
            if trace is None:
                steps = np.diff(tick)
                period = float(np.median(steps)) if len(steps) else 1e9 / FULL_HZ
                trace = self._trace(out, table.path, period or 1e9 / FULL_HZ, abs(period - 1e4) < 1)
                zero = int(tick[0])
            self._add(trace, tick - zero, microamps, microamps == CSV_LOST, line)
            await out.room()
        if trace is None or not trace.rows:
            raise DataError(f"{table.path}: expected lines of numbers, got none")

    def _trace(self, out: Outlet, path: Path, period_ns: float, at_full_rate: bool) -> Trace:
        """Begin the stream; below the full rate the app has averaged."""
        columns: dict[str, Any] = {"amps": Column(A, pa.float32())}
        if self.volts is not None:
            columns["volts"] = Column(V, pa.float32())
        stream = Stream("power", period_ns=period_ns, **columns)
        if self.volts is not None:
            out.rail(stream, _rail(self.boundary, None if at_full_rate else period_ns))
        return Trace(out, stream, path)

    def _add(self, trace: Trace, tick: Array, microamps: Array, lost: Array, line: int) -> None:
        columns = {"amps": microamps * 1e-6}
        if self.volts is not None:
            columns["volts"] = np.full(len(tick), self.volts)
        trace.add(tick, columns, line, lost)


@dataclass
class _Pins:
    """Tells each input's first level, and when it changes."""

    out: Outlet
    last: int | None = None

    def add(self, tick: Array, bits: Array) -> None:
        before = np.concatenate(([bits[0] if self.last is None else self.last], bits[:-1]))
        if self.last is None:
            self._tell(int(tick[0]), int(bits[0]), 0xFFFF)
        for place in np.flatnonzero(bits != before).tolist():
            self._tell(int(tick[place]), int(bits[place]), int(bits[place] ^ before[place]))
        self.last = int(bits[-1])

    def _tell(self, tick: int, bits: int, changed: int) -> None:
        for pin in _pins(changed):
            self.out.row(LOGIC, tick=tick, pin=pin, level=LEVELS[bits >> 2 * pin & 3])


def _pins(pairs: int) -> Iterator[int]:
    return (pin for pin in range(PINS) if pairs >> 2 * pin & 3)


def _rail(boundary: Boundary, window_ns: float | None) -> Rail:
    return Rail(
        "main",
        boundary,
        "gauge" if window_ns is None else "mean",
        window_ns=window_ns,
        gain=0.15 / 3**0.5,
        instrument="meter",
        source="10 %, 15 % in the highest range: Nordic, as quoted by PyPI ppk2lab 0.5.1; 15 % taken as limits",
    )

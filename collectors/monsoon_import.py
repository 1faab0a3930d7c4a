"""Importer ``monsoon``: what PyMonsoon and Monsoon's PowerTool write as CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Gt

from melt_stream.collectors._files import optional_lines, seconds_to_ns
from melt_stream.collectors._monsoon_csv import SAMPLE_S, Layout, Spread, layout
from melt_stream.collectors._trace_csv import Block, Csv, read_head
from melt_stream.collectors._trace_rows import Array, Trace, to_ns
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V, W

SIDE = ".t_monsoon"
"""Beside a file: seconds since 1970 at which MELT's rig began."""
SINCE_1970_S = 1e9
UNITS = {"watts": W, "amps": A, "volts": V}


@dataclass
class MonsoonImport:
    """Read one CSV file to its end.

    Raises ``DataError`` with the line where it is damaged, or no Monsoon's.
    """

    path: Path
    """The file, or the folder that has it as its only ``.csv``."""
    _: KW_ONLY
    volts: Annotated[float, Gt(0)] | None = None
    """The voltage, in V, where the file has none."""
    time_unit: Literal["s", "ms"] = "s"
    """Of PyMonsoon's times: what it calls ``Time(ms)`` are seconds."""
    boundary: Boundary = "battery"
    """What the main channel supplied."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        lines = [f"np.float64({k // 3 * 3 / 5000}),np.float64(100.5),4.0," for k in range(30)]
        header = "Time(ms),Main(mA),Main Voltage(V),"
        return {"kind": "files", "tree": {"measured.csv": "\n".join([header, *lines, ""])}}

    async def collect(self, out: Outlet) -> None:
        table = read_head(Path(self.path))
        known = layout(table.names, table.columns)
        if known is None:
            raise DataError(
                f"{table.path}, line 1: expected columns as PyMonsoon or PowerTool name them (Time(ms), Main(mA), "
                f"Main Voltage(V), ...), or three without a header, got {', '.join(table.names) or f'{table.columns} columns'}"
            )
        blocks = table.blocks([known.time, *(q.column for q in known.quantities)])
        first = next(blocks, None)
        if first is None:
            raise DataError(f"{table.path}: expected lines of numbers, got none")
        origin = self._origin(table, first)
        files = _Channels(
            self, out, table, known, _period(first.values[:, 0] * self._scale(known), known), first
        )
        for block in _with(first, blocks):
            seconds = block.values[:, 0] * self._scale(known) - origin
            files.add(seconds, block.values[:, 1:], block.line)
            await out.room()
        files.finish()
        out.fact("writer", "PowerTool" if known.averaged else "PyMonsoon")
        out.ready()

    def _scale(self, known: Layout) -> float:
        return 1e-3 if self.time_unit == "ms" and not known.averaged else 1.0

    def _origin(self, table: Csv, first: Block) -> float:
        """Return the time that becomes 0: that of the first row where it counts from 1970, else the writer's own."""
        begin = float(first.values[0, 0])
        side = table.path.with_name(SIDE)
        for number, text in optional_lines(side):
            if text.strip():
                self.start_utc_ns = seconds_to_ns(text.strip(), f"{side}, line {number}")
                break
        if begin > SINCE_1970_S:
            self.start_utc_ns = round(begin * 1e9)
            return begin
        return 0.0


def _with(first: Block, rest: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from rest


def _period(seconds: Array, known: Layout) -> float:
    """Return the time between rows, in seconds: the median step of means, or a whole number of the box's samples."""
    if len(seconds) < 2 or not seconds[-1] > seconds[0]:
        return SAMPLE_S
    if known.averaged:
        return float(np.median(np.diff(seconds))) or SAMPLE_S
    mean = float(seconds[-1] - seconds[0]) / (len(seconds) - 1)
    return SAMPLE_S * max(1, round(min(mean, 1e6) / SAMPLE_S))


class _Channels:
    """The streams of one file."""

    def __init__(
        self, settings: MonsoonImport, out: Outlet, table: Csv, known: Layout, period_s: float, first: Block
    ) -> None:
        self.known, self.path, self.volts = known, table.path, settings.volts
        stamps = first.values[:, 0]
        whole = bool(stamps[0] > SINCE_1970_S and (stamps == np.floor(stamps)).all())
        self.spread = None if known.averaged else Spread(period_s, whole)
        self.lost_s = 0
        self.traces: dict[str, Trace] = {}
        for channel in dict.fromkeys(q.channel for q in known.quantities):
            names = {q.quantity for q in known.quantities if q.channel == channel}
            if settings.volts is not None and channel == "main" and "volts" not in names:
                names.add("volts")
            columns: dict[str, Any] = {n: Column(UNITS[n], pa.float32()) for n in UNITS if n in names}
            stream = Stream(channel, period_ns=period_s * 1e9, **columns)
            if "watts" in names or {"volts", "amps"} <= names:
                out.rail(stream, _rail(channel, settings.boundary, known, period_s))
            self.traces[channel] = Trace(out, stream, table.path)

    def add(self, seconds: Array, values: Array, line: int) -> None:
        to_ns(seconds, self.path, line)  # refuses what goes back
        if self.spread is None:
            self._write(seconds, values, line)
            return
        for placed in self.spread.feed(seconds, values):
            self._write(placed.seconds, placed.values, line)

    def finish(self) -> None:
        for placed in self.spread.finish() if self.spread else ():
            self._write(placed.seconds, placed.values, 0)

    def _write(self, seconds: Array, values: Array, line: int) -> None:
        tick = to_ns(seconds, self.path, line)
        for channel, trace in self.traces.items():
            columns = {
                q.quantity: values[:, k] * q.factor
                for k, q in enumerate(self.known.quantities)
                if q.channel == channel
            }
            if self.volts is not None and channel == "main" and "volts" not in columns:
                columns["volts"] = np.full(len(tick), self.volts)
            trace.add(tick, columns, line)


def _rail(channel: str, boundary: Boundary, known: Layout, period_s: float) -> Rail:
    return Rail(
        channel,
        boundary if channel == "main" else {"usb": "dc_in"}.get(channel, "rail"),  # type: ignore[arg-type]
        "mean" if known.averaged else "gauge",
        window_ns=period_s * 1e9 if known.averaged else None,
        instrument="meter",
        source="Monsoon's CSV, which names neither the model nor its accuracy",
    )

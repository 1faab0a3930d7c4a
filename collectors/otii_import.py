"""Importer ``otii``: recordings of Qoitech's Otii Arc and Ace, exported as CSV by its desktop app.

No export and no description of one was at hand: columns are known by what their names say (time, current, voltage, power) and
the unit in parentheses.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from annotated_types import Gt

from melt_stream.collectors._trace_csv import Csv, read_head
from melt_stream.collectors._trace_rows import Array, Trace, to_ns
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, S, Unit, V, W

_TIME = re.compile(r"time(?:stamp)?s?\s*(?:[(\[]\s*(\w+)\s*[)\]])?", re.IGNORECASE)
_VALUE = re.compile(
    r"(?P<of>.*?)\b(?P<what>current|voltage|power)\b[^(\[]*(?:[(\[]\s*(?P<unit>\w+)\s*[)\]])?", re.IGNORECASE
)
_QUANTITIES = {"current": ("amps", A), "voltage": ("volts", V), "power": ("watts", W)}
_ORDER = ("watts", "volts", "amps")
SINCE_1970_S = 1e9


class Measured(NamedTuple):
    """A column, and the factor to A, V or W."""

    column: int
    quantity: str
    factor: float


@dataclass
class OtiiImport:
    """Read one CSV file to its end: the main channel's current, voltage and power, in one file.

    A voltage that comes less often than the current is held until the next one. Raises ``DataError`` with the line.
    """

    path: Path
    """The file, or the folder that has it as its only ``.csv``."""
    _: KW_ONLY
    volts: Annotated[float, Gt(0)] | None = None
    """What the Otii supplied, in V, where the file has no voltage."""
    channel: str = "main"
    """Which of several channels: a word of its columns' names."""
    boundary: Boundary = "battery"
    """What was supplied."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        lines = [f"{k / 4000:.6f},{0.05 + k / 1000:.4f},{'3.7' if k % 4 == 0 else ''}" for k in range(30)]
        return {
            "kind": "files",
            "tree": {"otii.csv": "\n".join(["Timestamp (s),Main current (A),Main voltage (V)", *lines, ""])},
        }

    async def collect(self, out: Outlet) -> None:
        table = read_head(Path(self.path))
        time, scale, measured = self._layout(table)
        trace: _Writing | None = None
        for line, values in table.blocks([time, *(m.column for m in measured)]):
            seconds = values[:, 0] * scale
            if trace is None:
                trace = self._begin(out, table, seconds, measured, line)
            trace.add(seconds, values[:, 1:], line)
            await out.room()
        if trace is None or not trace.trace.rows:
            raise DataError(f"{table.path}: expected lines of numbers, got none")
        out.ready()

    def _layout(self, table: Csv) -> tuple[int, float, list[Measured]]:
        times = [(k, m[1]) for k, name in enumerate(table.names) if (m := _TIME.fullmatch(name))]
        measured: dict[str, Measured] = {}
        for column, name in enumerate(table.names):
            match = _VALUE.fullmatch(name)
            if match is None or (match["of"].strip() and self.channel.lower() not in match["of"].lower()):
                continue
            quantity, base = _QUANTITIES[match["what"].lower()]
            factor = _factor(match["unit"], base, f"{table.path}, line 1, column {column + 1}")
            if quantity in measured:
                raise DataError(
                    f"{table.path}, line 1: expected one {match['what']} of {self.channel}, got columns "
                    f"{measured[quantity].column + 1} and {column + 1}; export one recording, or say channel = '...'"
                )
            measured[quantity] = Measured(column, quantity, factor)
        if not times or not measured.keys() & {"amps", "watts"}:
            raise DataError(
                f"{table.path}, line 1: expected a header such as Timestamp (s), {self.channel} current (A), "
                f"{self.channel} voltage (V), got {', '.join(table.names)[:200] or 'none'}"
            )
        column, unit = times[0]
        return column, _factor(unit, S, f"{table.path}, line 1, column {column + 1}"), [*measured.values()]

    def _begin(
        self, out: Outlet, table: Csv, seconds: Array, measured: list[Measured], line: int
    ) -> _Writing:
        """Begin the stream: its period is the median step of the rows that have the current (or power)."""
        ns = to_ns(seconds, table.path, line)
        origin = 0.0
        if seconds[0] > SINCE_1970_S:
            origin, self.start_utc_ns = float(seconds[0]), int(ns[0])
        steps = np.diff(ns)
        steps = steps[steps > 0]
        names = {m.quantity for m in measured} | ({"volts"} if self.volts is not None else set())
        columns: dict[str, Any] = {
            n: Column(dict(_QUANTITIES.values())[n], pa.float32()) for n in _ORDER if n in names
        }
        stream = Stream("main", period_ns=float(np.median(steps)) if len(steps) else None, **columns)
        if "watts" in names or {"volts", "amps"} <= names:
            out.rail(
                stream,
                Rail(
                    "main",
                    self.boundary,
                    "gauge",
                    instrument="meter",
                    source="Otii's CSV, which does not name its accuracy",
                ),
            )
        return _Writing(Trace(out, stream, table.path), measured, origin, self.volts)


@dataclass
class _Writing:
    trace: Trace
    measured: list[Measured]
    origin: float
    volts: float | None
    _held: float = field(default=float("nan"))

    def add(self, seconds: Array, values: Array, line: int) -> None:
        columns = {m.quantity: values[:, k] * m.factor for k, m in enumerate(self.measured)}
        if "volts" in columns:
            columns["volts"] = self._hold(columns["volts"])
        elif self.volts is not None:
            columns["volts"] = np.full(len(seconds), self.volts)
        tick = to_ns(seconds - self.origin, self.trace.path, line)
        power = columns["watts"] if "watts" in columns else columns["amps"]
        there = np.isfinite(power)
        kept = {name: column[there] for name, column in columns.items()}
        self.trace.add(tick[there], kept, line)

    def _hold(self, volts: Array) -> Array:
        """Return each voltage until the next one."""
        known = np.isfinite(volts)
        place = np.maximum.accumulate(np.where(known, np.arange(len(volts)), -1))
        held: Array = np.where(place >= 0, volts[np.maximum(place, 0)], self._held)
        self._held = float(held[-1])
        return held


def _factor(unit: str | None, base: Unit, where: str) -> float:
    try:
        return Unit(unit.replace("\u00b5", "u")).to(base) if unit else 1.0
    except ValueError as exc:
        raise DataError(f"{where}: {exc}") from exc

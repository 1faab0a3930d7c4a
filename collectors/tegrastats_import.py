"""Importer ``tegrastats``: the log of NVIDIA's tool on a Jetson, of any generation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from melt_stream.collectors._files import numbered_lines, the_file
from melt_stream.collectors._jetson_rails import TOTAL, parent, parts_of_total, whole, with_total
from melt_stream.collectors._tegrastats import Line, parse
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Stream
from melt_stream.units import BYTE, CELSIUS, HZ, PERCENT, W

LINES_LIMIT = 2_000_000
"""23 days of one line a second; all are held, since their times depend on each other."""
HOLE = 2.5
"""Periods without a line, after which some are missing."""
SOURCE = "tegrastats, from the board's INA3221s; their steps (0.4 W on AGX Orin) and accuracy are not in it"
STATE = {
    "cpu_load": PERCENT, "gpu_load": PERCENT, "emc_load": PERCENT, "vic_load": PERCENT, "gpu_hz": HZ, "emc_hz": HZ, "vic_hz": HZ,
    "ram_used": BYTE, "swap_used": BYTE,
}  # fmt: skip
Array = np.ndarray[Any, Any]


@dataclass
class TegrastatsImport:
    """Read one log to its end.

    Lines that tegrastats did not write are left out and counted. Raises ``DataError`` where none is, or times go back.
    """

    path: Path
    """The log."""
    _: KW_ONLY
    interval_ms: Annotated[float, Gt(0)] = 1000.0
    """What ``--interval`` said; the real one is some percent longer, and counts only where no line has a date."""
    total: tuple[str, ...] | None = None
    """Rails whose sum is the board's power, as rail ``total``; None: an AGX Orin's three, and none where there is an input rail."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        line = "RAM 2448/7772MB (lfb 4x4MB) CPU [3%@1510,off] GR3D_FREQ 12%@[305] cpu@43.9C CV0@-256C VDD_IN {0}mW/{0}mW"
        text = "".join(f"05-27-2024 16:33:{k:02} {line.format(4000 + k)}\n" for k in range(30))
        return {"kind": "files", "tree": {"tegrastats.log": text}}

    async def collect(self, out: Outlet) -> None:
        path = the_file(Path(self.path))
        lines, junk = _read(path)
        if not lines:
            raise DataError(
                f"{path}: expected lines of tegrastats (RAM ... CPU [...] ...), got none in {junk}"
            )
        numbers, parsed = [number for number, _ in lines], [line for _, line in lines]
        tick, t_u, period = self._times(parsed, numbers, path)
        power = Stream("power", period_ns=period, rail=str, watts=W).as_polled()
        thermal = Stream("thermal", period_ns=period, zone=str, celsius=CELSIUS).as_polled()
        state = Stream("state", period_ns=period, **STATE).as_polled()  # type: ignore[arg-type]
        totals = parts_of_total({name for line in parsed for name in line.watts}, self.total, str(self.path))
        for rail in _rails(parsed, totals):
            out.rail(power, rail)
        for place, line in enumerate(parsed):
            at = int(tick[place])
            stamp: dict[str, Any] = {"tick": at, "t_u": t_u}
            if place and tick[place] - tick[place - 1] > HOLE * period:
                self._hole(out, (power, thermal, state), int(tick[place - 1] + period), at, period)
            for name, watts in with_total(line.watts, totals).items():
                out.row(power, rail=name, watts=watts, **stamp)
            for zone, celsius in line.celsius.items():
                out.row(thermal, zone=zone, celsius=celsius, **stamp)
            if line.state:
                out.row(state, **stamp, **dict[str, Any](line.state))
            if place % 1024 == 0:
                await out.room()
        out.fact("lines_left_out", junk)
        out.fact(
            "times", "its dates, whole seconds" if t_u else "stamps" if parsed[0].stamp_ns else "the interval"
        )
        out.ready()

    def _hole(self, out: Outlet, streams: tuple[Stream, ...], start: int, stop: int, period: float) -> None:
        for stream in streams:
            out.gap(
                stream,
                start,
                stop,
                "lines are missing in the log",
                lost=max(1, round((stop - start) / period)),
            )

    def _times(self, lines: list[Line], numbers: list[int], path: Path) -> tuple[Array, int | None, float]:
        """Return each line's tick (ns), half of what it may be off where that is known, and the period, ns."""
        interval = self.interval_ms * 1e6
        count = np.arange(len(lines))
        if all(line.stamp_ns is not None for line in lines):
            stamps = np.array([line.stamp_ns for line in lines], np.int64)
            _no_way_back(stamps, numbers, path)
            self.start_utc_ns = int(stamps[0])
            return stamps - stamps[0], None, float(np.median(np.diff(stamps))) if len(lines) > 1 else interval
        if any(line.date_s is None for line in lines):
            return np.rint(count * interval).astype(np.int64), None, interval
        dates = np.array([line.date_s for line in lines], np.int64)
        _no_way_back(dates, numbers, path)
        return _within_seconds(dates - dates[0], interval)


def _within_seconds(dates: Array, interval: float) -> tuple[Array, int, float]:
    """Spread lines over the whole seconds that they are dated by: evenly, and none outside of its second."""
    steps = np.diff(dates)
    breaks = [0, *(np.flatnonzero(steps > max(2.0, HOLE * interval / 1e9)) + 1).tolist(), len(dates)]
    tick = np.empty(len(dates), np.int64)
    period = interval
    for start, stop in pairwise(breaks):
        part, count = dates[start:stop], np.arange(stop - start)
        if stop - start > 2:
            slope, at = np.polyfit(count, part + 0.5, 1)
            if stop - start > 0.5 * len(dates):
                period = float(slope) * 1e9
        else:
            slope, at = interval / 1e9, part[0] + 0.5
        fitted = np.rint((at + slope * count) * 1e9).astype(np.int64)
        tick[start:stop] = np.clip(fitted, part * 10**9, part * 10**9 + 10**9 - 1)
    return tick, 500_000_000, max(period, 1e6)


def _no_way_back(times: Array, numbers: list[int], path: Path) -> None:
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        raise DataError(
            f"{path}, line {numbers[int(back[0]) + 1]}: expected times that never decrease, got an earlier one; was the clock set? "
            "Split the log there"
        )


def _read(path: Path) -> tuple[list[tuple[int, Line]], int]:
    """Return the numbered lines of tegrastats, and how many others there are that are not empty."""
    lines, junk = [], 0
    for number, text in numbered_lines(path):
        if (line := parse(text)) is not None:
            lines.append((number, line))
        elif text.strip():
            junk += 1
        if len(lines) > LINES_LIMIT:
            raise DataError(
                f"{path}, line {number}: expected at most {LINES_LIMIT} lines, got more; split it"
            )
    return lines, junk


def _rails(lines: list[Line], totals: tuple[str, ...]) -> Iterator[Rail]:
    names = dict.fromkeys(name for line in lines for name in line.watts)
    board = whole(names, totals)
    for name in [*names, *([TOTAL] if totals else [])]:
        boundary: Boundary = "board" if name == board else "rail"
        lies_in = parent(name, names, board)
        yield Rail(name, boundary, "gauge", parent=lies_in, instrument="gauge", source=SOURCE)

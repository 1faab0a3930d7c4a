"""Importer ``tegrastats``: the log of NVIDIA's tool on a Jetson, of any generation."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from melt_stream.collectors._files import numbered_lines, the_file
from melt_stream.collectors._jetson_recorded import write
from melt_stream.collectors._tegrastats import SOURCE, Line, parse
from melt_stream.collectors._whole_seconds import within_seconds
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet

LINES_LIMIT = 2_000_000
"""23 days of one line a second; all are held, since their times depend on each other."""
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
        await write(
            out, parsed, tick.tolist(), t_u, period, total=self.total, source=SOURCE, where=str(self.path)
        )
        out.fact("lines_left_out", junk)
        out.fact(
            "times", "its dates, whole seconds" if t_u else "stamps" if parsed[0].stamp_ns else "the interval"
        )
        out.ready()

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
        return within_seconds(dates - dates[0], interval)


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

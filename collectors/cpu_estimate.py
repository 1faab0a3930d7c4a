"""An estimate of power from CPU time, for machines without a sensor: a model, and called so everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from melt_stream.collector import Health
from melt_stream.collectors._proc_stat import TICKS_PER_SECOND, Ticks, cores, shares
from melt_stream.collectors._sysfs import health
from melt_stream.outlet import Row
from melt_stream.rail import Rail
from melt_stream.sensor import Files, FileSensor, Find
from melt_stream.stream import Stream
from melt_stream.units import W

IDLE_WATTS = 0.74
"""Per logical CPU at 0 % load, and ..."""
BUSY_WATTS = 3.5
"""... at 100 %: the averages over server processors (SPECpower) that Cloud Carbon Footprint uses for AWS,
https://www.cloudcarbonfootprint.org/docs/methodology, appendix I."""
GAIN = 0.5
"""Relative standard uncertainty. An assumption: processors of one year differ by a factor of 2 to 3 in W per core,
and clock, voltage, vector units and memory traffic, which /proc/stat does not show, move one core as much."""


@dataclass
class CpuEstimate(FileSensor):
    """``watts = idle_watts + core_watts x busy cores``, the mean since the last sample, from /proc/stat.

    No sensor is involved. The defaults are a server average; fit ``idle_watts`` and ``core_watts`` to a meter's
    readings at rest and under load to make the numbers this machine's.
    """

    idle_watts: Annotated[float, Ge(0)] | None = None
    """Power at rest; by default 0.74 W a logical CPU."""
    core_watts: Annotated[float, Ge(0)] = BUSY_WATTS - IDLE_WATTS
    """What a busy logical CPU adds."""

    stream = Stream("power", watts=W)
    _last: dict[int, Ticks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        return {"stat": "proc/stat"} if find("proc/stat") else {}

    def parse(self, files: Files) -> Row:
        now = cores(files["stat"])
        both = [shares(self._last[cpu], ticks) for cpu, ticks in now.items() if cpu in self._last]
        busy = [share.busy for share in both if share]
        if (
            not busy
        ):  # the first sample, or the kernel has not counted since: the next one covers this time too
            self._last = self._last or now
            return {"watts": None}
        self._last = now
        idle = IDLE_WATTS * len(now) if self.idle_watts is None else self.idle_watts
        # A core of which no jiffy is known is taken to be as busy as the others.
        return {"watts": idle + self.core_watts * sum(busy) * len(now) / len(busy)}

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        rail = Rail(
            "cpu",
            boundary="board",
            kind="mean",
            gain=GAIN,
            resolution=self.core_watts * self.hz / TICKS_PER_SECOND,
            estimated=True,
            instrument="model",
            source="model: idle_watts + core_watts x busy CPUs; defaults from Cloud Carbon Footprint (SPECpower)",
        )
        return [(self.stream, rail)]

    def check(self) -> Health:
        there = health(self, "stat", "proc", "a Linux host, with /proc mounted")
        return Health(True, "a model of CPU time, no sensor: its power is estimated") if there.ok else there

    @staticmethod
    def example() -> dict[str, Any]:
        stat = "cpu  300 0 0 700 0 0 0 0 0 0\ncpu0 100 0 0 400 0 0 0 0 0 0\ncpu1 200 0 0 300 0 0 0 0 0 0\n"
        return {
            "kind": "files",
            "tree": {"proc/stat": stat},
            "config": {"idle_watts": 2.0, "core_watts": 8.0},
        }

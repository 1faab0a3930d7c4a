"""Where each core's time goes, from /proc/stat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from melt_stream.collector import Health
from melt_stream.collectors._proc_stat import JIFFY, Ticks, cores, shares
from melt_stream.collectors._sysfs import health
from melt_stream.outlet import Row
from melt_stream.sensor import Files, FileSensor, Find, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import ONE

_COUNT = Column(JIFFY, pa.int64())


@dataclass
class Cpu(FileSensor):
    """Shares of each core's time since the last sample, and the kernel's own counts.

    A count moves in steps of 10 ms, so a share at ``hz`` is known to hz/100: for slower, finer shares divide
    differences of ``busy_time`` by those of ``total_time``. The first sample has no shares.
    """

    stream = Stream(
        "cpu", cpu=int, busy=ONE, iowait=ONE, steal=ONE,
        busy_time=_COUNT, iowait_time=_COUNT, steal_time=_COUNT, total_time=_COUNT,
    )  # fmt: skip
    _last: dict[int, Ticks] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        return {"stat": "proc/stat"} if find("proc/stat") else {}

    def parse(self, files: Files) -> Iterator[Row]:
        last, self._last = self._last, cores(files["stat"])
        for cpu, now in self._last.items():
            share = shares(last[cpu], now) if cpu in last else None
            yield {
                "cpu": cpu, **(share._asdict() if share else {}), "busy_time": now.busy,
                "iowait_time": now.iowait, "steal_time": now.steal, "total_time": now.total,
            }  # fmt: skip

    def check(self) -> Health:
        there = health(self, "stat", "proc", "a Linux host, with /proc mounted")
        if not there.ok:
            return there
        return Health(True, f"{len(cores(read_files(self.root, {'stat': 'proc/stat'})['stat']))} CPUs")

    @staticmethod
    def example() -> dict[str, Any]:
        stat = """
cpu  5531 0 2688 322174 286 0 66 73 0 0
cpu0 1866 0 1086 162391 25 0 13 34 0 0
cpu1 3664 0 1602 159783 260 0 52 38 0 0
intr 182098 0 0
"""
        return {"kind": "files", "tree": {"proc/stat": stat}, "config": {}}

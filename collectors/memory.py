"""Memory of the host, and of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._process_memory import COMM, unique_set
from melt_stream.collectors._sysfs import health, integers, text
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Row
from melt_stream.sensor import Files, FileSensor, Find, Rows, finder, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import BYTE

_BYTES = Column(BYTE, pa.int64())
PROCESS = Stream("process", pid=int, rss=_BYTES, pss=_BYTES, uss=_BYTES, swap=_BYTES)
"""A process's sums over its mappings: resident, proportional (shared pages divided), unique, and swapped out."""
_MEMINFO = {
    "total": "MemTotal", "available": "MemAvailable", "free": "MemFree", "buffers": "Buffers", "cached": "Cached",
    "swap_total": "SwapTotal", "swap_free": "SwapFree",
}  # fmt: skip


@dataclass
class Memory(FileSensor):
    """/proc/meminfo, and smaps_rollup of the process with ``pid`` or of all called ``process``.

    The kernel walks every mapping of a process for one rollup (some ms for a model of some GB): leave ``hz`` low. A
    process that is not there (yet) has no rows; it is looked for once a second. On a device it is named by its ``pid``.
    """

    pid: Annotated[int, Gt(0)] | None = None
    process: str | None = None
    """As in /proc/PID/comm, such as ``llama-server``."""
    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 1.0
    """Reads a second."""

    stream = Stream(
        "memory", total=_BYTES, available=_BYTES, free=_BYTES, buffers=_BYTES, cached=_BYTES,
        swap_total=_BYTES, swap_free=_BYTES,
    )  # fmt: skip
    _rollups: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _reads: int = field(default=0, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        if not find("proc/meminfo"):
            return {}
        rollup = {} if self.pid is None else {str(self.pid): f"proc/{self.pid}/smaps_rollup"}
        return {"meminfo": "proc/meminfo", **rollup}

    def parse(self, files: Files) -> Row:
        kib = integers(files["meminfo"])
        row: Row = {column: kib[name] * 1024 for column, name in _MEMINFO.items() if name in kib}
        if not row:
            raise DeviceError(
                f"proc/meminfo: expected lines such as 'MemTotal: 123 kB', got {files['meminfo'][:80]!r}"
            )
        return row

    def look(self) -> tuple[Files, dict[str, str]]:
        return super().look(), self._processes()

    def tell(self, seen: Files | tuple[Files, dict[str, str]]) -> Rows:
        """Take what was looked at here, or the files alone, as a device's loop reads them."""
        if isinstance(seen, Files) and self.process is not None:
            raise ConfigError(
                f"memory: expected pid = ... of a process on a device, got process = {self.process!r}, which is looked for here alone; "
                "use kind = 'process_memory' there"
            )
        files, rollups = (seen, {}) if isinstance(seen, Files) else seen
        if self.pid is not None and (lines := text(files, str(self.pid))):
            rollups = {str(self.pid): lines, **rollups}
        host = super().tell(files)
        assert isinstance(host, dict)  # as parse makes it
        return [host, *((PROCESS, {"pid": int(pid), **_rollup(lines)}) for pid, lines in rollups.items())]

    def _processes(self) -> dict[str, str]:
        if not self._rollups and self._reads % math.ceil(self.hz) == 0:
            self._rollups = {str(pid): f"proc/{pid}/smaps_rollup" for pid in self._pids()}
        self._reads += 1
        files = read_files(self.root, self._rollups)
        rollups = {pid: lines for pid in files if (lines := text(files, pid))}
        self._rollups = {pid: self._rollups[pid] for pid in rollups}
        return rollups

    def _pids(self) -> list[int]:
        if self.process is None:
            return []
        comms = read_files(
            self.root, {path.split("/")[1]: path for path in finder(self.root)("proc/[0-9]*/comm")}
        )
        return [int(pid) for pid in comms if text(comms, pid) == self.process[:COMM]]

    def check(self) -> Health:
        there = health(self, "meminfo", "proc", "a Linux host, with /proc mounted")
        if not there.ok:
            return there
        if self.pid is None and self.process is None:
            return Health(True, "meminfo; no process is asked for")
        pids = [*self._pids(), *([] if self.pid is None else [self.pid])]
        files = read_files(self.root, {str(pid): f"proc/{pid}/smaps_rollup" for pid in pids})
        if not files:
            return Health(True, f"meminfo; no process is called {self.process!r} yet")
        if files.unreadable:
            gone = files.unreadable[0]
            return Health(
                False, f"cannot read {gone.path}: {gone.reason}", "run as the process's user, or as root"
            )
        return Health(True, f"meminfo, and the process {', '.join(files)}")

    @staticmethod
    def example() -> dict[str, Any]:
        meminfo = "MemTotal:  8000 kB\nMemFree:  4000 kB\nMemAvailable:  6000 kB\nBuffers:  100 kB\nCached:  1500 kB\n"
        rollup = (
            "5581-7ffd ---p 00000000 00:00 0  [rollup]\nRss:  900 kB\nPss:  700 kB\nPrivate_Clean:  100 kB\n"
        )
        tree = {"proc/meminfo": meminfo, "proc/42/smaps_rollup": rollup, "proc/42/comm": "llama-server"}
        return {"kind": "files", "tree": tree, "config": {"process": "llama-server"}}


def _rollup(lines: str) -> Row:
    kib = integers(lines)
    sums = {"rss": kib.get("Rss"), "pss": kib.get("Pss"), "swap": kib.get("Swap"), "uss": unique_set(kib)}
    return {name: None if value is None else value * 1024 for name, value in sums.items()}

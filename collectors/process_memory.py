"""The memory of a process on a device, by name or number, through its restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pyarrow as pa
from annotated_types import Gt

from melt_stream.collector import Health
from melt_stream.collectors._dumps import Asked, Asking, Stamp
from melt_stream.collectors._process_memory import COMM, LOOK, SHELL, Seen, changes, seen
from melt_stream.devices import run
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.stream import Column, Stream
from melt_stream.units import BYTE

_BYTES = Column(BYTE, pa.int64())


@dataclass
class ProcessMemory(Asked):
    """Every process called ``process``, or the one with ``pid``, at most once a second; each look starts one shell there.

    One that is not there has no rows; that it comes, goes or starts anew is a mark among the events, with the number of the
    kernel's OOM kills meanwhile. Raises ``DeviceError`` where the device has no shell that can look, ``Gone`` where the link ends.
    """

    process: str = ""
    """Its program's name (``llama-server``), its first argument, or an Android app's package."""
    pid: Annotated[int, Gt(0)] | None = None

    def prepare(self) -> None:
        """Raise ``ConfigError`` where it is not said which process, or twice."""
        if bool(self.process) == (self.pid is not None):
            raise ConfigError(f"expected process or pid, got process={self.process!r} and pid={self.pid}")

    def check(self) -> Health:
        """Say what must be said."""
        return Health(
            True,
            "needs process or pid" if not self.process and self.pid is None else "any device with a shell",
        )

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"pid": 1}}

    async def collect(self, out: Outlet) -> None:
        await self.place.runner()
        clock = self.place.clock
        stream = Stream(
            "process",
            clock=clock,
            pid=int,
            rss=_BYTES,
            pss=_BYTES,
            uss=_BYTES,
            swap=_BYTES,
            name=str,
            peak=_BYTES,
        ).as_polled(1e9 / self.hz)
        marks = events("process_events", clock)
        self.streams = stream, marks
        before: Seen | None = None

        def take(now: Seen, stamp: Stamp) -> None:
            nonlocal before
            for one in now.processes:
                out.row(
                    stream, pid=one.pid, rss=one.rss, pss=one.pss, uss=one.uss, swap=one.swap, name=one.name, peak=one.peak, **stamp,
                )  # fmt: skip
            for change in changes(before or Seen(oom_kills=now.oom_kills), now):
                out.row(marks, kind="mark", name=change.words, tick=stamp["tick"], epoch=stamp["epoch"])
            before = now

        await self._asking(await self._shell()).tell(self.place, out, (stream,), seen, take)

    async def _shell(self) -> list[str]:
        device = self.place.device
        if not (words := (await run(device, ["sh", "-c", SHELL])).out.decode(errors="replace").split()):
            raise DeviceError(
                f"{device.name}: expected a shell with read -d (mksh, or bash), got none; install bash"
            )
        return words

    def _asking(self, shell: Sequence[str]) -> Asking:
        by = ("pid", "") if self.pid is not None else ("name", self.process[:COMM])
        what = str(self.pid) if self.pid is not None else self.process
        return Asking(
            (*shell, "-c", LOOK, "look", *by),
            what,
            1 / self.hz,
            "what the kernel says of processes, to its end",
        )

"""What a runtime writes of its inference, on any device: a log that grows, a phone's logcat, or a command's output."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Literal

import trio
from pydantic import PositiveFloat

from melt_stream.collector import Health
from melt_stream.collectors._log_executorch import ExecuTorch
from melt_stream.collectors._log_llamacpp import Bench, Timings
from melt_stream.collectors._log_melt import MeltEvents
from melt_stream.collectors._log_mlc import MlcStats, MlcTrace
from melt_stream.collectors._log_patterns import Pattern, Patterns
from melt_stream.collectors._log_rows import UPTIME, Rows, streams_of
from melt_stream.collectors._log_said import At, Format, Said, Unreadable
from melt_stream.devices import Happened, Line, Local, Place, followed, logcat, logged, run
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

Name = Literal["executorch", "mlc", "mlc_trace", "llama_bench", "llama_cpp", "melt_events", "patterns"]
BURST = 4
"""Readings of CLOCK_BOOTTIME at the start and at the end."""
FAREWELL_S = 2.0
Items = AsyncGenerator[Line | Happened, None]


@dataclass
class InferenceLog:
    """Follow a log and tell what it says as events, on the clocks that it tells it by.

    Say one of ``file``, ``logcat`` and ``command``. As a collector it listens until the run ends; as a workload it runs ``command``
    and ends with it. What a log does not tell is not made up: docs/workloads.md has, by format, what it becomes.
    """

    format: Name
    _: KW_ONLY
    file: str = ""
    """Path on the device; it may come later, rotate, and be cut short."""
    whole: bool = False
    """Read also what is in the file already."""
    logcat: list[str] | None = None
    """Follow a phone's log: filters such as ``MyApp:I``; an empty list for all of it."""
    command: list[str] = field(default_factory=list)
    """Run this on the device; its stdout is the log."""
    patterns: list[Pattern] = field(default_factory=list)
    """With ``format = "patterns"``: what lines look like, and mean."""
    one_prompt: bool = False
    """The sums that ``mlc`` and sessions of ``llama_cpp`` print are of one prompt and its answer, which followed each other up to the line."""
    keep_lines: bool = True
    """Keep every line in the stream ``log``."""
    settle_s: PositiveFloat = 1.0
    """What tells only as a whole (``melt_events``, ``mlc_trace``) is taken for whole when nothing came for so long."""

    def __post_init__(self) -> None:
        given = [name for name in ("file", "command") if getattr(self, name)]
        given += ["logcat"] if self.logcat is not None else []
        if len(given) != 1:
            raise ConfigError(f"expected one of file, logcat and command, got {given or 'none'}")
        if bool(self.patterns) != (self.format == "patterns"):
            raise ConfigError(
                f"patterns: expected some with format = 'patterns' alone, got {len(self.patterns)} with {self.format!r}"
            )
        self._format()
        self._stand(Place(Local("local")))

    @staticmethod
    def example() -> dict[str, Any]:
        told = "import time\nfor k in range(10000): print('token', k, time.time_ns(), flush=True); time.sleep(0.01)"
        pattern = {
            "event": "token",
            "pattern": r"token (?P<index>\d+) (?P<time>\d+)",
            "clock": "realtime",
            "unit": "ns",
        }
        config = {"format": "patterns", "command": [sys.executable, "-c", told], "patterns": [pattern]}
        return {"kind": "plain", "config": config}

    def on(self, place: Place) -> InferenceLog:
        """Return one that follows it there."""
        there = copy.copy(self)
        there._stand(place)
        return there

    def check(self) -> Health:
        """Tell whether there is a shell that knows the time; asks no other device."""
        if not any(map(shutil.which, ("bash", "mksh"))):
            return Health(False, "no shell with EPOCHREALTIME", "install bash 5 or mksh")
        return Health(True, self.file or " ".join(self.command) or "logcat")

    async def collect(self, out: Outlet) -> None:
        """Listen until cancelled, or the command ends. Raises ``Gone``, ``DeviceError`` where the command fails."""
        async with self.place.clocked(out) as epoch:
            rows = Rows(out, self.place, self.streams, epoch, self.keep_lines)
            takes = partial(self._take, self._format(), rows)
            await self._boottime(rows)
            if not self.command:
                out.ready()
            name = self.command[0].rpartition("/")[2] if self.command else ""
            if name:
                out.fact("command", self.command)
                out.row(EVENTS, kind="phase_start", name=name)
            try:
                await self._listen(out, takes)
            finally:
                takes(None)
                if name:
                    out.row(EVENTS, kind="phase_end", name=name)
                with trio.move_on_after(FAREWELL_S, shield=True), suppress(DeviceError):
                    await self._boottime(rows)

    def _stand(self, place: Place) -> None:
        self.place, self.streams = place, streams_of(place)

    def _format(self) -> Format:
        makes: dict[str, Callable[[], Format]] = {
            "executorch": ExecuTorch, "mlc": partial(MlcStats, self.one_prompt), "mlc_trace": MlcTrace, "llama_bench": Bench,
            "llama_cpp": partial(Timings, self.one_prompt), "melt_events": MeltEvents,
            "patterns": partial(Patterns, self.patterns),
        }  # fmt: skip
        return makes[self.format]()

    def _items(self, out: Outlet) -> Items:
        if self.file:
            return followed(self.place, out, self.file, whole=self.whole)
        return self.place.lines(out, self.command or logcat(self.logcat or ()))

    async def _listen(self, out: Outlet, takes: Callable[[Line | Happened | None], None]) -> None:
        """Hand over what comes, and None where nothing does for some time."""
        send, receive = trio.open_memory_channel[Line | Happened](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pump, self._items(out), send)
            held = False
            while True:
                item = None
                with trio.move_on_after(self.settle_s if held else float("inf")):
                    try:
                        item = await receive.receive()
                    except trio.EndOfChannel:
                        return
                held = item is not None
                takes(item)

    def _take(self, form: Format, rows: Rows, item: Line | Happened | None) -> None:
        try:
            if item is None:
                rows.add(form.finish())
            elif isinstance(item, Happened):
                rows.happened(item)
            else:
                rows.line(item)
                rows.add(self._said(form, item))
        except Unreadable as exc:
            rows.unreadable(str(exc))

    def _said(self, form: Format, line: Line) -> list[Said]:
        """What a line of logcat tells without a time, it tells at its own stamp."""
        if self.logcat is None:
            return list(form.take(line.text))
        if (found := logged(line.text)) is None:
            return []
        return [
            Said(said.kind, _stamped(said.at, found.ns, found.resolution_ns), said.request, said.values)
            for said in form.take(found.text)
        ]

    async def _boottime(self, rows: Rows) -> None:
        if not any(pattern.clock == "boottime" for pattern in self.patterns):
            return
        for _ in range(BURST):
            before = rows.out.now()
            done = await run(self.place.device, ["cat", UPTIME])
            rows.boottime(done.out, before, rows.out.now())


def _stamped(at: At, ns: int, resolution_ns: int) -> At:
    return At("realtime", ns + at.ns, resolution_ns) if at.base == "line" else at


async def _pump(items: Items, send: trio.MemorySendChannel[Line | Happened]) -> None:
    async with send, aclosing(items):
        async for item in items:
            await send.send(item)

"""Runs collectors, workloads and sinks together, and ends them in order.

The nesting in :func:`record` is the order of the end: collectors end, the shipper drains the hub and closes the
inboxes, the sinks see their input end, write their footers and return. A run ends in no other way, so that neither
a failure nor a time limit nor a signal costs a row.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVarTuple, Unpack

import trio

from melt_stream.clock import Now, monotonic, read_host_clocks
from melt_stream.collector import Collector, Workload
from melt_stream.errors import ConfigError, DeviceError, MeltError
from melt_stream.events import EVENTS
from melt_stream.failures import failures
from melt_stream.outlet import RUN, Hub, Outlet, warm_up
from melt_stream.shipper import Inbox, ship
from melt_stream.signals import on_signals
from melt_stream.sink import Sink
from melt_stream.stream import NAME
from melt_stream.supervise import Supervised, prepare, wait_ready

log = logging.getLogger(__name__)
Ts = TypeVarTuple("Ts")
BURST = 8
"""Readings of the host's clocks at the start and at the end of a run; one a second between."""


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    reason: str
    error: BaseException | None = None
    """What failed; None for a good end, a time limit and a signal."""
    signal: int | None = None
    exit_status: int | None = None
    """Of the command that was wrapped, if one was."""


async def record(
    collectors: Mapping[str, Collector],
    sinks: Sequence[Sink],
    workloads: Mapping[str, Workload] | None = None,
    *,
    devices: Mapping[str, str] | None = None,
    seconds: float = float("inf"),
    baseline: float = 0.0,
    start_timeout: float = 30.0,
    flush_every: float = 0.25,
    limit_rows: int = 4_000_000,
    now: Now = monotonic,
) -> Ending:
    """Record until the workloads have ended, ``seconds`` have passed, every collector has returned, or one fails.

    ``collectors`` and ``workloads`` go by instance name, ``devices`` says what each belongs to (``host``). Workloads
    run one after the other, when every required collector is ready, between two idle ``baseline`` seconds. Raises
    ``ConfigError`` for bad names before anything starts; a failure later on is in the ending, not raised, and every
    row up to it was handed to the sinks. Cancellation is passed on when they have ended.
    """
    plan = _Plan(collectors, workloads or {}, devices or {}, seconds, baseline, start_timeout)
    plan.check()
    warm_up()
    run = _Run(Hub(now, limit_rows))
    async with trio.open_nursery() as watching:
        watching.start_soon(on_signals, run.interrupt, run.abandon)
        async with trio.open_nursery() as consuming:
            for inbox in (inboxes := [Inbox(sink) for sink in sinks]):
                await consuming.start(run.feed, inbox)
            consuming.start_soon(_to_the_end, ship, run.hub, inboxes, flush_every, closed := trio.Event())
            try:
                async with trio.open_nursery() as collecting:
                    run.begin(collecting.cancel_scope)
                    collecting.start_soon(run.heed, inboxes)
                    collecting.start_soon(run.read_clocks)
                    collecting.start_soon(run.direct, plan)
            finally:
                run.close()
                closed.set()
        watching.cancel_scope.cancel()
    return run.result(plan)


@dataclass(frozen=True)
class _Plan:
    """The arguments of ``record``."""

    collectors: Mapping[str, Collector]
    workloads: Mapping[str, Workload]
    devices: Mapping[str, str]
    seconds: float
    baseline: float
    start_timeout: float

    def check(self) -> None:
        names = [*self.collectors, *self.workloads]
        for name in names:
            if not NAME.fullmatch(name) or name == RUN or names.count(name) > 1:
                raise ConfigError(
                    f"expected unique instance names [a-z][a-z0-9_]* other than {RUN!r}, got {name!r}"
                )
        if unknown := sorted(set(self.devices) - set(names)):
            raise ConfigError(f"devices: expected instance names out of {names}, got {unknown}")


class _Run:
    """The state of a run: its hub, how it ends, and what can be cancelled."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.own = hub.outlet(RUN)
        self.outs: dict[str, Outlet] = {}
        self._ending: Ending | None = None
        self._sink_error: BaseException | None = None
        self._collecting: trio.CancelScope | None = None
        self._sinks: list[trio.CancelScope] = []

    def begin(self, collecting: trio.CancelScope) -> None:
        """Let ``end`` cancel this; at once where the run has ended before it began."""
        self._collecting = collecting
        if self._ending is not None:
            collecting.cancel()

    def end(self, reason: str, error: BaseException | None = None, number: int | None = None) -> None:
        """End the run in order; the first reason stands, and the first error."""
        if self._ending is None:
            log.info("the run ends: %s", reason)
            self._ending = Ending(reason, error, number)
        elif self._ending.error is None and error is not None:
            self._ending = replace(self._ending, error=error)
        if self._collecting is not None:
            self._collecting.cancel()

    def interrupt(self, number: signal.Signals) -> None:
        """End the run at the first signal."""
        self.end(f"signal {number.name}", number=int(number))

    def abandon(self) -> None:
        """Give up the sinks that have not ended, at the second signal."""
        for scope in self._sinks:
            scope.cancel()

    def close(self) -> None:
        """Write the last rows: open gaps end, and the host's clocks are read once more."""
        for out in self.outs.values():
            out.close()
        self._read_clocks(BURST)

    def result(self, plan: _Plan) -> Ending:
        """Return how the run ended."""
        ending = self._ending or Ending("ended")
        statuses = (getattr(workload, "exit_status", None) for workload in plan.workloads.values())
        status = next((status for status in statuses if status is not None), None)
        return replace(ending, error=ending.error or self._sink_error, exit_status=status)

    async def feed(self, inbox: Inbox, task_status: trio.TaskStatus[None]) -> None:
        """Run one sink to its end, which nothing but a second signal cuts short."""
        with failures(partial(self._sink_failed, inbox)):
            with trio.CancelScope(shield=True) as scope:
                self._sinks.append(scope)
                try:
                    await prepare(inbox.sink)
                finally:
                    task_status.started()
                await inbox.sink.consume(inbox)
                if inbox.waits and not inbox.closed:
                    raise MeltError("expected it to go on until its input ends, got an early return")
            if scope.cancelled_caught:
                raise MeltError("abandoned at the second signal; its last rows are lost")
        inbox.abandon()

    def _sink_failed(self, inbox: Inbox, why: BaseException) -> None:
        text = f"sink {inbox.name} failed: {why}"
        log.error("%s", text)
        self._sink_error = self._sink_error or why
        if not inbox.waits:
            self.own.fact("sink_failed", text)
        elif self._ending is not None and self._ending.reason == _asked(inbox):
            self._ending = Ending(text, why)  # it says only now why
        else:
            self.end(text, why)

    async def heed(self, inboxes: Sequence[Inbox]) -> None:
        """End the run when a sink asks for it by its event ``ending``, while it still takes what comes."""

        async def wait(inbox: Inbox, ending: trio.Event) -> None:
            await ending.wait()
            self.end(_asked(inbox))

        async with trio.open_nursery() as nursery:
            for inbox in inboxes:
                if (ending := getattr(inbox.sink, "ending", None)) is not None:
                    nursery.start_soon(wait, inbox, ending)

    async def read_clocks(self) -> None:
        """Tie the host's other clocks to the monotonic one: a burst now, then a reading a second."""
        self._read_clocks(BURST)
        while True:
            await trio.sleep(1)
            self._read_clocks(1)

    def _read_clocks(self, times: int) -> None:
        if self.own.now is monotonic:  # a fake clock has no relation to the real ones
            for _ in range(times):
                for reading in read_host_clocks():
                    self.own.clock_reading(reading)

    async def direct(self, plan: _Plan) -> None:
        """Start the collectors; when they are ready run the workloads, or wait; then end the run."""
        for name in (*plan.collectors, *plan.workloads):
            self.outs[name] = self.hub.outlet(name, plan.devices.get(name, "host"))
        everyone = [
            Supervised(name, collector, self.outs[name], self.end)
            for name, collector in plan.collectors.items()
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._measure, plan, everyone, ended := trio.Event())
            async with trio.open_nursery() as collectors:
                for one in everyone:
                    collectors.start_soon(one.run)
            ended.set()

    async def _measure(self, plan: _Plan, everyone: Sequence[Supervised], ended: trio.Event) -> None:
        for name, workload in plan.workloads.items():
            with failures(partial(self._workload_failed, name)):
                await prepare(workload)
        await trio.lowlevel.checkpoint()  # one that failed has cancelled this
        if late := await wait_ready(everyone, plan.start_timeout):
            return self.end(late, DeviceError(late))
        with trio.move_on_after(plan.seconds):
            if not plan.workloads:
                await ended.wait()
                return self.end("collectors ended")
            await self._work(plan)
            return self.end("workloads ended")
        return self.end("time limit")

    async def _work(self, plan: _Plan) -> None:
        await self._baseline(plan.baseline)
        for name, workload in plan.workloads.items():
            with failures(partial(self._workload_failed, name)):
                await workload.collect(self.outs[name])
            await trio.lowlevel.checkpoint()  # one that failed has cancelled this: the next must not begin
        await self._baseline(plan.baseline)

    async def _baseline(self, seconds: float) -> None:
        if seconds > 0:
            self.own.row(EVENTS, kind="phase_start", name="baseline")
            try:
                await trio.sleep(seconds)
            finally:
                self.own.row(EVENTS, kind="phase_end", name="baseline")

    def _workload_failed(self, name: str, why: BaseException) -> None:
        self.end(f"workload {name!r} failed: {why}", why)


def _asked(inbox: Inbox) -> str:
    return f"sink {inbox.name} asked for the end"


async def _to_the_end(work: Callable[[Unpack[Ts]], Awaitable[None]], *args: *Ts) -> None:
    with trio.CancelScope(shield=True):
        await work(*args)

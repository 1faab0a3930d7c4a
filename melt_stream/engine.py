"""Runs collectors, workloads and sinks together, and ends them in order.

The nesting in :func:`record` is the order of the end: collectors end, the shipper drains the hub and closes the
inboxes, the sinks see their input end, write their footers and return. A run ends in no other way, so that neither
a failure nor a time limit nor a signal costs a row.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVarTuple, Unpack

import trio

from melt_stream.clock import Now, monotonic, read_host_clocks
from melt_stream.collector import Collector, Workload
from melt_stream.ending import Ender, Ending, TimedOut
from melt_stream.experiment import Experiment, Plan
from melt_stream.feeding import Feeding
from melt_stream.outlet import RUN, Hub, Outlet, warm_up
from melt_stream.shipper import ship
from melt_stream.signals import on_signals
from melt_stream.sink import Sink

__all__ = ["Ending", "record"]

Ts = TypeVarTuple("Ts")
BURST = 8
"""Readings of the host's clocks at the start and at the end of a run; one a second between."""


async def record(
    collectors: Mapping[str, Collector],
    sinks: Sequence[Sink],
    workloads: Mapping[str, Workload] | None = None,
    *,
    devices: Mapping[str, str] | None = None,
    seconds: float = float("inf"),
    baseline: float = 0.0,
    start_timeout: float = 30.0,
    deadline: float = float("inf"),
    marker: Workload | None = None,
    flush_every: float = 0.25,
    limit_rows: int = 4_000_000,
    now: Now = monotonic,
) -> Ending:
    """Record until the workloads have ended, ``seconds`` have passed, every collector has returned, or one fails.

    ``collectors`` and ``workloads`` go by instance name, ``devices`` says what each belongs to (``host``). Workloads
    run one after the other, when every required collector is ready, between two idle ``baseline`` seconds. A
    ``marker`` is played before all of that and after it, outside of ``seconds``. A run that goes on for ``deadline``
    seconds in all, whatever it does, fails with ``TimedOut``. Raises
    ``ConfigError`` for bad names before anything starts; a failure later on is in the ending, not raised, and every
    row up to it was handed to the sinks. Cancellation is passed on when they have ended.
    """
    plan = Plan(collectors, workloads or {}, devices or {}, seconds, baseline, start_timeout, marker)
    plan.check()
    warm_up()
    hub, ender, closed = Hub(now, limit_rows), Ender(), trio.Event()
    own, experiment = hub.outlet(RUN), Experiment(plan, hub, ender)
    feeding = Feeding(sinks, ender, own)

    def interrupt(number: signal.Signals) -> None:
        ender.end(f"signal {number.name}", signal=int(number))

    async with trio.open_nursery() as watching:
        watching.start_soon(on_signals, interrupt, feeding.abandon)
        async with trio.open_nursery() as consuming:
            consuming.start_soon(_to_the_end, ship, hub, feeding.inboxes, flush_every, closed)
            try:
                with trio.CancelScope(
                    shield=True
                ):  # a sink whose start is cancelled would never see its input end
                    await feeding.start(consuming)
                async with trio.open_nursery() as collecting:
                    ender.begin(collecting.cancel_scope)
                    collecting.start_soon(feeding.heed)
                    collecting.start_soon(_keep_reading_clocks, own)
                    collecting.start_soon(experiment.run)
                    collecting.start_soon(_limit, deadline, ender)
            finally:
                experiment.close()
                _read_clocks(own, BURST)
                closed.set()
                hub.hurry()
        watching.cancel_scope.cancel()
    ending = ender.ending or Ending("ended")
    return replace(ending, error=ending.error or feeding.error, exit_status=plan.exit_status)


async def _to_the_end(work: Callable[[Unpack[Ts]], Awaitable[None]], *args: *Ts) -> None:
    with trio.CancelScope(shield=True):
        await work(*args)


async def _limit(seconds: float, ender: Ender) -> None:
    await trio.sleep(seconds)
    why = f"expected its end within {seconds:g} s, got none"
    ender.end(f"timeout: {why}", TimedOut(why))


async def _keep_reading_clocks(own: Outlet) -> None:
    """Tie the host's other clocks to the monotonic one: a burst now, then a reading a second."""
    _read_clocks(own, BURST)
    while True:
        await trio.sleep(1)
        _read_clocks(own, 1)


def _read_clocks(own: Outlet, times: int) -> None:
    if own.now is monotonic:  # a fake clock has no relation to the real ones
        for _ in range(times):
            for reading in read_host_clocks():
                own.clock_reading(reading)

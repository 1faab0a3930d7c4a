"""Keeping collectors going: what is retried, what ends the run, and who is not ready."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from melt_stream.errors import Transient
from melt_stream.failures import failures
from melt_stream.outlet import Outlet

log = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
GOOD_S = 60.0
"""A collector that ran so long is well again: its next failure is retried soon."""


@dataclass
class Supervised:
    """One collector of a run."""

    name: str
    collector: Any
    out: Outlet
    failed: Callable[[str, BaseException], None]
    """Called with a failure that cannot be retried; it ends the run."""
    last_error: BaseException | None = None
    prepared: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    """Set when it has no more."""
    _again: bool = False

    @property
    def optional(self) -> bool:
        """Whether the run does without it."""
        return bool(getattr(self.collector, "optional", False))

    @property
    def order(self) -> int:
        """When it begins among the others, and when it ends (see ``Collector``)."""
        return int(getattr(self.collector, "order", 0))

    @property
    def ready(self) -> trio.Event:
        """What the run waits for before the workloads: its first row; of an optional one, that its drivers are in."""
        return self.prepared if self.optional else self.out.is_ready

    async def run(self) -> None:
        """Collect until there is no more, again after each failure that asking again may cure."""
        pause, again = FIRST_PAUSE_S, True
        while again:
            started = trio.current_time()
            again = await self._once()
            if trio.current_time() - started >= GOOD_S:
                pause = FIRST_PAUSE_S
            if again:
                log.warning("%s: asking again in %.1f s: %s", self.name, pause, self.last_error)
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        self.prepared.set()
        self.over.set()

    async def _once(self) -> bool:
        """Collect; return whether to do it again."""
        self._again = False
        with failures(self._failed):
            if not self.prepared.is_set():
                await prepare(self.collector)
                self.prepared.set()
            await self.collector.collect(self.out)
            self.out.ready()
        return self._again

    def _failed(self, why: BaseException) -> None:
        self.last_error = why
        self.out.broken(f"{type(why).__name__}: {why}")
        if isinstance(why, Transient):
            self._again = True
            return
        self.out.fact("failed", f"{type(why).__name__}: {why}")
        if self.optional:
            log.error("%s failed; the run goes on without it: %s", self.name, why)
        else:
            self.failed(f"collector {self.name!r} failed: {why}", why)


async def run_in_order(everyone: Sequence[Supervised]) -> None:
    """Run all to their ends: those of a higher order begin when those of the lower are ready, and end before them."""
    lowest = min((one.order for one in everyone), default=0)
    now = [one for one in everyone if one.order == lowest]
    later = [one for one in everyone if one.order != lowest]
    scope = trio.CancelScope(shield=bool(later))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_all, now, scope)
        try:
            if later:
                for one in now:
                    await one.ready.wait()
                await run_in_order(later)
        finally:
            scope.shield = False  # the run's end has waited here


async def _run_all(everyone: Sequence[Supervised], scope: trio.CancelScope) -> None:
    with scope:
        async with trio.open_nursery() as nursery:
            for one in everyone:
                nursery.start_soon(one.run)


async def wait_ready(everyone: Sequence[Supervised], seconds: float) -> str | None:
    """Wait until all have begun to measure; return who has not, and why, if that takes longer than ``seconds``."""
    with trio.move_on_after(seconds):
        for one in everyone:
            await one.ready.wait()
        return None
    late = [one for one in everyone if not one.ready.is_set()]
    said = "; ".join(f"{one.name!r} ({one.last_error or 'it said nothing'})" for one in late)
    return f"expected a first row of every collector within {seconds:g} s, got none of {said}"


async def prepare(thing: Any) -> None:
    """Call a collector's or sink's ``prepare``, if it has one, in a thread: drivers imported, kernels compiled."""
    if (blocking := getattr(thing, "prepare", None)) is not None:
        await trio.to_thread.run_sync(blocking, abandon_on_cancel=True)

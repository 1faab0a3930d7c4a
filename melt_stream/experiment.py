"""What a run does in its middle: collectors all the time, workloads between two baselines when all are ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from melt_stream.collector import Collector, Workload
from melt_stream.ending import Ender
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.failures import failures
from melt_stream.marker import NAME as MARKER
from melt_stream.outlet import RUN, Hub
from melt_stream.stream import NAME
from melt_stream.supervise import Supervised, prepare, run_in_order, wait_ready


@dataclass(frozen=True)
class Plan:
    """What to run and for how long: the arguments of ``record``."""

    collectors: Mapping[str, Collector]
    workloads: Mapping[str, Workload]
    devices: Mapping[str, str]
    seconds: float
    baseline: float
    start_timeout: float
    marker: Workload | None = None
    """Played before everything and after it, under the instance name ``marker``."""

    def check(self) -> None:
        """Raise ``ConfigError`` for names that are no instance names, or of nobody."""
        names = [*self.collectors, *self.workloads, *([MARKER] if self.marker else [])]
        for name in names:
            if not NAME.fullmatch(name) or name == RUN or names.count(name) > 1:
                raise ConfigError(
                    f"expected unique instance names [a-z][a-z0-9_]* other than {RUN!r}, got {name!r}"
                )
        if unknown := sorted(set(self.devices) - set(names)):
            raise ConfigError(f"devices: expected instance names out of {names}, got {unknown}")

    @property
    def exit_status(self) -> int | None:
        """The exit status of the command that a workload wrapped, if one did."""
        statuses = (getattr(workload, "exit_status", None) for workload in self.workloads.values())
        return next((status for status in statuses if status is not None), None)


class Experiment:
    """Carries out a plan, and ends the run when that is done."""

    def __init__(self, plan: Plan, hub: Hub, ender: Ender) -> None:
        self.plan, self._ender = plan, ender
        self._own = hub.outlet(RUN)
        self._outs = {
            name: hub.outlet(name, plan.devices.get(name, "host"))
            for name in (*plan.collectors, *plan.workloads, *([MARKER] if plan.marker else []))
        }

    async def run(self) -> None:
        """Start the collectors; when they are ready run the workloads, or wait; then end the run."""
        collectors = self.plan.collectors.items()
        everyone = [Supervised(name, one, self._outs[name], self._ender.end) for name, one in collectors]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._measure, everyone)
            await run_in_order(everyone)

    def close(self) -> None:
        """Say that no collector writes any more: gaps that are still open end now."""
        for out in self._outs.values():
            out.close()

    async def _measure(self, everyone: Sequence[Supervised]) -> None:
        for name, workload in self.plan.workloads.items():
            with failures(partial(self._failed, name)):
                await prepare(workload)
        await trio.lowlevel.checkpoint()  # one that failed has cancelled this
        if late := await wait_ready(everyone, self.plan.start_timeout):
            return self._ender.end(late, DeviceError(late))
        await self._mark()
        reason = "time limit"
        with trio.move_on_after(self.plan.seconds):
            if not self.plan.workloads:
                for one in [one for one in everyone if not one.order] or everyone:
                    await one.over.wait()
                return self._ender.end("collectors ended")
            await self._work()
            reason = "workloads ended"
        await self._mark()
        return self._ender.end(reason)

    async def _work(self) -> None:
        await self._baseline()
        for name, workload in self.plan.workloads.items():
            with failures(partial(self._failed, name)):
                await workload.collect(self._outs[name])
            await trio.lowlevel.checkpoint()  # one that failed has cancelled this: the next must not begin
        await self._baseline()

    async def _mark(self) -> None:
        if self.plan.marker is not None:
            with failures(partial(self._failed, MARKER)):
                await self.plan.marker.collect(self._outs[MARKER])
            await trio.lowlevel.checkpoint()

    async def _baseline(self) -> None:
        if self.plan.baseline > 0:
            self._own.row(EVENTS, kind="phase_start", name="baseline")
            try:
                await trio.sleep(self.plan.baseline)
            finally:
                self._own.row(EVENTS, kind="phase_end", name="baseline")

    def _failed(self, name: str, why: BaseException) -> None:
        self._ender.end(f"workload {name!r} failed: {why}", why)

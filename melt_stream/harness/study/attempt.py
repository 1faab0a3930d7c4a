"""One run of a study: what is done before it, the recording, what is done after it, and, where it failed, why."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from melt_stream.devices import Device, Local, run
from melt_stream.ending import Ender, Ending
from melt_stream.errors import DeviceError, MeltError
from melt_stream.failures import failures
from melt_stream.harness.introduced import introduced
from melt_stream.harness.placed import placed, places
from melt_stream.harness.session import Outcome, finish, folder_of, recorded
from melt_stream.harness.study.failure import Evidence, Failure, failure
from melt_stream.harness.study.order import Slot
from melt_stream.harness.study.planning import plan_of
from melt_stream.harness.study.rules import Command
from melt_stream.harness.study.witness import evidence, look, look_again
from melt_stream.recipe import Plan
from melt_stream.run import RunFolder, create
from melt_stream.signals import on_signals
from melt_stream.sink import Sink

Devices = Mapping[str, Device]


@dataclass(frozen=True)
class Attempt:
    """A run that is to be made."""

    study: str
    slot: Slot
    number: int
    """Which attempt at this slot, from 1."""

    def said(self, **more: Any) -> dict[str, Any]:
        """What the run's manifest says of it."""
        slot = self.slot
        return {
            "name": self.study, "points": slot.cell.points, "repetition": slot.repetition, "warmup": slot.warmup,
            "attempt": self.number, "wanted": slot.cell.rules.repeat, **more,
        }  # fmt: skip

    def make(self, archive: Path, sinks: Sequence[Sink] = (), **more: Any) -> Outcome:
        """Make it; blocks until it has ended. A failure is in the outcome, and its kind in the run's manifest.

        Killed at any moment, it leaves a run that was interrupted.
        """
        cell, study = self.slot.cell, self.said(**more)
        try:
            plan = plan_of(cell.configuration, cell.where)
        except MeltError as exc:  # what it names is not there any more: a model, a file, a plug-in
            return self._unplanned(archive, study, exc)
        with folder_of(plan, archive, cell=cell.id, study=study) as folder:
            ending, kind = trio.run(self._whole, plan, folder, sinks)
            if kind is not None:
                folder.manifest.study["failure"] = kind
            finish(folder, ending)
        return Outcome(folder.path, ending)

    def _unplanned(self, archive: Path, study: dict[str, Any], error: MeltError) -> Outcome:
        """Record that the run could not be planned."""
        cell, ending = self.slot.cell, Ending(f"no plan: {error}", error)
        study["failure"] = failure(Evidence(error))
        with create(archive, recipe=cell.configuration, name=self.study, cell=cell.id, study=study) as folder:
            finish(folder, ending)
        return Outcome(folder.path, ending)

    async def _whole(
        self, plan: Plan, folder: RunFolder, sinks: Sequence[Sink]
    ) -> tuple[Ending, Failure | None]:
        rules, where = self.slot.cell.rules, self.slot.cell.where
        there = places(plan.recipe)
        devices: Devices = {"host": Local()} | {name: place.device for name, place in there.items()}

        async def introduce() -> None:
            folder.manifest.devices = await introduced(plan.recipe.device, there)

        before = await look(devices)
        ending = await heeding(partial(carry_out, "before", rules.commands("before", where), devices))
        ending = ending or await heeding(introduce)
        if ending is None:
            ending = await recorded(placed(plan, there), folder, sinks, rules.timeout_s or float("inf"))
        after = await heeding(partial(carry_out, "after", rules.commands("after", where), devices))
        if after is not None and ending.error is None and ending.signal is None:
            ending = after
        if ending.signal is not None or not (ending.error or ending.exit_status):
            return ending, None
        now = await look_again(devices, before, rules.patience_s)
        return ending, failure(evidence(ending, before, now, devices))


async def carry_out(when: str, commands: Mapping[str, Command], devices: Devices) -> None:
    """Run commands one after the other. Raises ``DeviceError`` for one that does not end with 0, ``Transient`` for one that takes too long."""
    for name, command in commands.items():
        done = await run(devices[command.device], command.run, deadline_s=command.timeout_s)
        if done.status:
            said = done.complaints or done.out.decode(errors="replace").strip()
            raise DeviceError(
                f"{when} {name}: expected 0 from {command.run} on {command.device}, got {done.status}: {said[-500:]}"
            )


async def heeding(work: Callable[[], Awaitable[None]]) -> Ending | None:
    """Do some work; return how a failure or a signal ended it, None where it came to its own end."""
    ender = Ender()

    def interrupt(number: signal.Signals) -> None:
        ender.end(f"signal {number.name}", signal=int(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(on_signals, interrupt, lambda: None)
        with trio.CancelScope() as scope:
            ender.begin(scope)
            with failures(lambda why: ender.end(str(why), why)):
                await work()
        nursery.cancel_scope.cancel()
    return ender.ending

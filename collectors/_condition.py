"""A condition: something that is set before the measured part of a run, and put back afterwards, whatever happens.

Each thing that is set is a ``Step``, pure: how its state is read, what an output means, which commands bring a state about.
``Holding`` does it: it reads every state first, sets what differs, sees that it is so, and at the end reverts it and looks again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from melt_stream.collector import Health
from melt_stream.collectors._guard import Guard, guarding
from melt_stream.collectors._undoing import PAUSE_S, Command, Undo, ask, carry_out, complaint, put_back
from melt_stream.devices import Device
from melt_stream.devices.channel import quoted
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.stream import Stream

log = logging.getLogger(__name__)
CONDITION = Stream("condition", polled=True, name=str, stage=str, value=str)
"""States as they were read: ``before`` anything was set, ``during`` when it was, at the ``end`` of the run, ``after`` it was put back."""
SETTLE_S, LOOK_S = 5.0, 0.2
"""How long a new state may take to show, and how often it is looked for."""
END_S = 5.0
"""How long it is tried at the end to see whether a state held."""


@dataclass(frozen=True)
class Step:
    """One thing that has a state."""

    name: str
    read: Sequence[str]
    """The command that prints its state; none: it cannot be read, and is taken to be ``otherwise`` before."""
    told: Callable[[str], str]
    """From an output to a state. Raises ``ValueError``."""
    change: Callable[[str], Sequence[Command]]
    """The commands that bring a state about."""
    wanted: str | None = None
    """The state for the run; None: it is only looked at."""
    otherwise: str = ""
    detail: Callable[[str], Any] | None = None
    """What the facts say of an output, where that is more than the state."""
    drifts: bool = False
    """Whether the device itself may change it once it is put back, so that it is not compared then."""
    hint: Callable[[str], str] = lambda _: ""
    """What to try, by what the commands said that did not bring the state about."""

    def undo(self, before: str) -> Undo:
        """How it becomes what it was."""
        return Undo(self.name, before, self.change(before))


def tool_health(words: Sequence[str], where: str) -> Health:
    """Whether the first of these words is a program here, for what mostly runs on a device."""
    if (path := shutil.which(words[0])) is not None:
        return Health(True, f"{words[0]} is {path}")
    return Health(
        False,
        f"there is no {words[0]} on this machine",
        f"it runs on {where}: device = its name in the recipe",
    )


@dataclass
class Holding:
    """Steps on a device, for the time of a run."""

    out: Outlet
    device: Device
    steps: Sequence[Step]
    patience_s: float
    """How long it is tried at the end to put them back."""
    keep: Sequence[int] = ()
    """Descriptors that stay open until all is put back, also by the guard."""
    before: dict[str, str] = field(default_factory=dict, init=False)
    changed: list[Step] = field(default_factory=list, init=False)
    _waiting: list[Row] = field(default_factory=list, init=False)
    """Rows of before it is ready, as the first row says that it is. Where it never is, the facts tell."""

    async def hold(self) -> None:
        """Set, say that it is ready, and put back when cancelled.

        Nothing is set where a state cannot be read. Raises ``Transient`` or ``DeviceError`` where something cannot be
        read or set, what was set being put back then, and ``DeviceError`` where something could not be put back.
        """
        self.before = await self._look("before")
        if all(step.wanted in {None, self.before[step.name]} for step in self.steps):
            await self._wait(None)
            return
        async with guarding(self.device, self.patience_s, self.keep) as guard:
            await self._wait(guard)

    async def _wait(self, guard: Guard | None) -> None:
        try:
            for step in self.steps:
                await self._set(step, guard)
            self._begin()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    async def _set(self, step: Step, guard: Guard | None) -> None:
        if step.wanted is None:
            return
        if guard is None or await self._now(step) == step.wanted:
            self._row(step, "during", step.wanted)
            return
        self.changed.insert(0, step)
        await guard.expect(self._undos())
        await self._shows(step, step.wanted, await carry_out(self.device, step.change(step.wanted)))

    async def _now(self, step: Step) -> str:
        """Its state: what was set since may have changed it."""
        return await self._read(step) if self.changed and step.read else self.before[step.name]

    async def _shows(self, step: Step, wanted: str, said: str) -> None:
        """Wait until a state is there. Raises ``DeviceError`` if it does not come."""
        until = trio.current_time() + SETTLE_S
        got = await self._read(step) if step.read else wanted
        while got != wanted and trio.current_time() < until:
            await trio.sleep(LOOK_S)
            got = await self._read(step)
        if got != wanted:
            hint = step.hint(said)
            raise DeviceError(
                f"{self.device.name}: {step.name}: expected {wanted}, got {got} after {quoted(step.change(wanted)[-1].words)!r}, "
                f"which said {said[-300:]!r}{hint and '; try: '}{hint}"
            )
        self._row(step, "during", wanted)

    async def _end(self) -> None:
        """Put back, in the opposite order, in bounded time; what is then not as it was is set once more, and is an error."""
        with trio.move_on_after(END_S), suppress(DeviceError):
            await self._held()
        wrong = await put_back(self.device, self._undos(), self.patience_s)
        if not wrong:
            wrong = await self._after()
        if wrong:
            for line in wrong:
                log.error("%s: %s", self.out.instance, line)
            raise DeviceError(" ".join(wrong))

    async def _held(self) -> None:
        """See whether what was set is still so."""
        for step in self.changed:
            if step.read and (got := await self._read(step, "end")) != step.wanted:
                log.warning(
                    "%s: %s was %s at the end, not %s any more",
                    self.out.instance,
                    step.name,
                    got,
                    step.wanted,
                )
                self.out.fact("not_held", {step.name: got})

    async def _after(self) -> list[str]:
        """Look whether all is as it was; return what is not, and how to do it by hand."""
        why = "no time was left to look"
        with trio.move_on_after(self.patience_s):
            while True:
                try:
                    return [self._complaint(step, f"it is {got}") for step, got in await self._differing()]
                except DeviceError as exc:
                    why = f"it was set back, but nobody can look: {exc}"
                await trio.sleep(PAUSE_S)
        return [self._complaint(step, why) for step in self.changed]

    async def _differing(self) -> list[tuple[Step, str]]:
        """Set once more what is not as it was, which another's change may have undone; return what even then is not."""
        found, differing = await self._look("after"), []
        for step in [step for step in self.steps if found[step.name] != self.before[step.name]]:
            if self.changed and not step.drifts and self.before[step.name]:
                await carry_out(self.device, step.change(self.before[step.name]))
                if (got := await self._read(step, "after")) != self.before[step.name]:
                    differing.append((step, got))
        return differing

    def _complaint(self, step: Step, why: str) -> str:
        return complaint(self.device, step.undo(self.before[step.name]), why)

    def _undos(self) -> list[Undo]:
        return [step.undo(self.before[step.name]) for step in self.changed]

    async def _look(self, stage: Literal["before", "after"]) -> dict[str, str]:
        """Read all states, as rows and as a fact; what is only looked at may be unreadable, unless all is."""
        facts: dict[str, Any] = {}
        states = {step.name: step.otherwise for step in self.steps}
        unread: list[DeviceError] = []
        for step in [step for step in self.steps if step.read]:
            try:
                states[step.name] = await self._read(step, stage, facts)
            except Transient:
                raise
            except DeviceError as exc:
                unread.append(exc)
                if step.wanted is not None or len(unread) == len(self.steps):
                    raise
                log.warning("%s: %s", self.out.instance, exc)
                facts[step.name] = {"unreadable": str(exc)}
        self.out.fact(stage, facts)
        return states

    async def _read(self, step: Step, stage: str = "", facts: dict[str, Any] | None = None) -> str:
        start = self.out.now()
        said = (await ask(self.device, Command(step.read))).out.decode(errors="replace").strip()
        try:
            state, detail = step.told(said), step.detail(said) if step.detail else None
        except ValueError as exc:
            raise DeviceError(
                f"{self.device.name}: {quoted(step.read)}: expected {step.name}, got {said[:300]!r}: {exc}"
                + ("; nothing is set without it" if stage == "before" else "")
            ) from exc
        if facts is not None:
            facts[step.name] = state if detail is None else detail
        if stage:
            self._row(step, stage, state, start)
        return state

    def _row(self, step: Step, stage: str, value: str, start: int | None = None) -> None:
        stop = self.out.now()
        start = stop if start is None else start
        self._waiting.append(
            {
                "tick": (start + stop) // 2, "t_u": (stop - start) // 2,
                "name": step.name, "stage": stage, "value": value,
            }
        )  # fmt: skip
        if self.out.is_ready.is_set():
            self._begin()

    def _begin(self) -> None:
        """Write the rows, which says that it is ready."""
        self.out.ready()
        for row in self._waiting:
            self.out.row(CONDITION, **row)
        self._waiting.clear()

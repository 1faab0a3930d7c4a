"""Condition ``relay``: one meter shared by several devices, or its mains, switched by any command; one at a time, checked."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import PositiveFloat

from melt_stream.collectors._alone import alone
from melt_stream.collectors._condition import CONDITION, Holding, Step
from melt_stream.collectors._undoing import Command
from melt_stream.devices import Local
from melt_stream.errors import ConfigError
from melt_stream.outlet import Outlet

__all__ = ["CONDITION", "Relay"]

OPEN = "open"


@dataclass
class Relay:
    """Connect ``channel`` for the time of a run, and what was connected before afterwards.

    Break before make: ``open`` disconnects all, which is checked where ``state`` can, and only then something is connected. Runs on
    this machine, whatever ``device`` says. Two recorders never switch one relay: the second waits, for the recipe's ``start_timeout_s``.
    """

    channel: str
    """The one to connect."""
    channels: dict[str, list[str]]
    """The command that connects each, by name."""
    open: list[str]
    """The command that disconnects all."""
    _: KW_ONLY
    name: str = "relay"
    """Which relay it is: recorders on this machine that give the same name exclude each other."""
    state: list[str] = field(default_factory=list)
    """A command that prints what is connected; none: that is taken to be nothing before the run, and is not checked."""
    states: dict[str, str] = field(default_factory=dict)
    """Regular expressions that find each channel, and ``open``, in what ``state`` prints; exactly one may match. By default the name as a word."""
    settle_s: Annotated[float, Ge(0)] = 0.5
    """To wait after each switching."""
    patience_s: PositiveFloat = 10.0
    """How long it is tried at the end to put it back, and then to look whether it is."""
    order: ClassVar[int] = -2

    def __post_init__(self) -> None:
        if self.channel not in self.channels:
            raise ConfigError(f"channel: expected one of {sorted(self.channels)}, got {self.channel!r}")
        if OPEN in self.channels:
            raise ConfigError(f"channels: expected other names than {OPEN!r}, which is the one of none")
        if not all([self.open, *self.channels.values()]):
            raise ConfigError("open, channels: expected commands, got an empty one")
        if unknown := sorted(self.states.keys() - {OPEN, *self.channels}):
            raise ConfigError(f"states: expected {OPEN!r} or names of channels, got {unknown}")
        for name, pattern in self.states.items():
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ConfigError(
                    f"states.{name}: expected a regular expression, got {pattern!r}: {exc}"
                ) from exc

    @staticmethod
    def example() -> dict[str, Any]:
        commands = {"channels": {"phone": ["true"]}, "open": ["true"]}
        return {
            "kind": "plain",
            "config": {
                "channel": "phone", "state": ["echo", "phone"], "settle_s": 0.0, "name": "example", **commands,
            },
        }  # fmt: skip

    async def collect(self, out: Outlet) -> None:
        with alone(f"relay {self.name}") as lock:
            await Holding(out, Local(), [self.step()], self.patience_s, (lock,)).hold()

    def step(self) -> Step:
        """What is connected."""
        return Step(self.name, self.state, self.told, self.change, self.channel, otherwise=OPEN)

    def told(self, said: str) -> str:
        """Return what is connected, by what ``state`` printed. Raises ``ValueError`` where that is not exactly one."""
        found = [name for name in (OPEN, *self.channels) if re.search(self._pattern(name), said)]
        if len(found) != 1:
            raise ValueError(f"{found or 'none'} of {[OPEN, *self.channels]}, not one; see `states`")
        return found[0]

    def change(self, state: str) -> list[Command]:
        """Break, and then make."""
        commands = [Command(self.open, self.settle_s)]
        if state != OPEN:
            if self.state:
                commands.append(Command(self.state, expect=self._pattern(OPEN)))
            commands.append(Command(self.channels[state], self.settle_s))
        return commands

    def _pattern(self, name: str) -> str:
        return self.states.get(name, rf"\b{re.escape(name)}\b")

"""What a study's table ``[study]`` says beside its axes, checked: how its runs are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from melt_stream.errors import ConfigError
from melt_stream.plugins import configure, nearest

Order = Literal["interleaved", "fixed", "shuffled"]


@dataclass(frozen=True)
class Command:
    """A command on a device, before or after each run: a list of its words, no shell."""

    run: Annotated[list[str], Field(min_length=1)]
    device: str = "host"
    timeout_s: PositiveFloat = 60.0


@dataclass(frozen=True)
class Cooldown:
    """What is waited for before each run."""

    seconds: NonNegativeFloat = 0.0
    """At least so long after the run before."""
    collector: str = ""
    """A collector of the recipe that measures temperatures; it is read where it is, over adb or ssh too."""
    until_c: float | None = None
    """All its temperatures are at most so high, in degrees Celsius."""
    label: str = ""
    """Only that one counts: a thermal zone's name, say."""
    at_most_s: PositiveFloat = 900.0
    """After which the run is made all the same, and says so."""

    def __post_init__(self) -> None:
        if bool(self.collector) != (self.until_c is not None):
            raise ValueError(
                f"expected collector and until_c together, got collector={self.collector!r} and until_c={self.until_c}"
            )


@dataclass(frozen=True)
class Rules:
    """How the runs of one cell are made. Each field is a key of ``[study]``, and a point may lay another over it."""

    repeat: PositiveInt = 1
    """Finished runs wanted."""
    warmup: NonNegativeInt = 0
    """Runs before them, which are kept and marked."""
    timeout_s: PositiveFloat | None = None
    """What a run may take in all; one that takes longer has failed."""
    retries: NonNegativeInt = 0
    """How often a run that failed is made again at once."""
    patience_s: NonNegativeFloat = 60.0
    """How long a device that does not answer after a failed run may take to come back: it may be booting."""
    before: dict[str, Any] = field(default_factory=dict)
    """By name, in this order: commands before each run; ``run`` (a list of words), ``device``, ``timeout_s``."""
    after: dict[str, Any] = field(default_factory=dict)
    """Commands after each run, however it ended."""
    cooldown: dict[str, Any] = field(default_factory=dict)
    """What is waited for before each run: see ``Cooldown``."""

    def commands(self, when: Literal["before", "after"], where: str) -> dict[str, Command]:
        """Return the commands, checked. Raises ``ConfigError``."""
        said: dict[str, Any] = getattr(self, when)
        return {name: configure(Command, _table(entry, f"{where}.{when}.{name}"), f"{where}.{when}.{name}")
                for name, entry in said.items()}  # fmt: skip

    def wait(self, where: str) -> Cooldown:
        """Return the cool-down, checked. Raises ``ConfigError``."""
        made: Cooldown = configure(Cooldown, self.cooldown, f"{where}.cooldown")
        return made

    def check(self, recipe: Mapping[str, Any], where: str) -> None:
        """Raise ``ConfigError`` for what is wrong, or names a device or a collector that ``recipe`` does not have."""
        devices = {"host", *recipe.get("device", {})}
        for command in (*self.commands("before", where).values(), *self.commands("after", where).values()):
            if command.device not in devices:
                raise ConfigError(
                    f"{where}: expected a device of the recipe for {command.run}, got {command.device!r}; "
                    f"{nearest(command.device, devices)}"
                )
        collectors, name = recipe.get("collectors", {}), self.wait(where).collector
        if name and name not in collectors:
            raise ConfigError(
                f"{where}.cooldown.collector: expected a collector of the recipe, got {name!r}; {nearest(name, collectors)}"
            )


@dataclass(frozen=True)
class StudyTable(Rules):
    """All of ``[study]``."""

    order: Order = "interleaved"
    """``interleaved``: each cell once, then each again, so that a drift spreads over all; ``fixed``: a cell's runs one after the other; ``shuffled``."""
    seed: int = 1
    """Of ``shuffled``."""
    axes: dict[str, dict[str, Any]] = field(default_factory=dict)
    include: list[dict[str, Any]] = field(default_factory=list)
    """Where there are any, only cells that meet one of them are made: ``axis = point`` or ``axis = [point, ...]``, all of which must hold."""
    exclude: list[dict[str, Any]] = field(default_factory=list)
    """Cells that meet one of them are not made."""


OF_A_CELL = frozenset(Rules.__dataclass_fields__)
"""The keys of ``[study]`` that a point may override."""


def _table(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: expected a table with run = [...], got {entry!r}")
    return entry

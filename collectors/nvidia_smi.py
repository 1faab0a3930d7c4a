"""NVIDIA GPUs of a server or board whose library cannot be called from here: nvidia-smi's loop, run there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from melt_stream.collector import Health
from melt_stream.collectors._nvidia import AMPERE, average, gauge, instant, mean, plain_is_mean, state
from melt_stream.collectors._nvidia_smi import FORMAT, Card, Reading, cards, identity, known, reading
from melt_stream.collectors._nvidia_smi_example import SHIM
from melt_stream.collectors._telling import Listener, Rows, here, needed
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Outlet, Row
from melt_stream.stream import Stream

CURE = 'NVIDIA\'s driver with its tools (nvidia-utils-NNN), or tool = ["/its/path"]'


@dataclass
class NvidiaSmi(Listener):
    """Runs ``nvidia-smi --query-gpu=... -lms N`` and stamps its lines by the clock of the machine that it runs on.

    Streams are those of ``nvml`` but for the energy counter, which it does not print: instant and average power, and the state of every GPU. What
    a GPU does not have is null, or no rail. Raises as ``Telling`` does.
    """

    _: KW_ONLY
    interval_ms: Annotated[int, Ge(1)] = 100
    """A line for each GPU so often. The sensor is read every 20 to 100 ms: faster only repeats."""
    tool: list[str] = field(default_factory=lambda: ["nvidia-smi"])
    """The program, and what comes before its options."""

    _cards: dict[str, tuple[str, Card]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Rail and GPU by UUID: an index is another GPU's where one was lost."""

    def __post_init__(self) -> None:
        if not self.tool:
            raise ConfigError("tool: expected a program and its arguments, got none")
        clock, period = self._place.clock, self.interval_ms * 1e6
        made = (instant(clock), average(clock), state(clock))
        self.streams: tuple[Stream, ...] = tuple(stream.as_polled(period) for stream in made)

    async def collect(self, out: Outlet) -> None:
        """Listen until cancelled."""
        asked = await needed(self._place, [*self.tool, "--help-query-gpu"], "nvidia-smi", CURE)
        words = asked.out.decode(errors="replace")
        fields = known(words)
        if not fields:
            raise DeviceError(
                f"{self._place.device.name}: expected fields of nvidia-smi, got none in its help; try: {CURE}"
            )
        await self._identify(identity(words), out)
        command = [
            *self.tool,
            f"--query-gpu={','.join(['uuid', *fields])}",
            FORMAT,
            "-lms",
            str(self.interval_ms),
        ]

        def rows(line: str) -> Rows | None:
            found = reading(line, fields)
            return None if found is None or found.uuid not in self._cards else self._rows(found, out)

        await self.listen(out, command, rows, "a line of nvidia-smi", self.interval_ms)

    async def _identify(self, asking: str, out: Outlet) -> None:
        """Learn which GPUs there are."""
        query = [*self.tool, f"--query-gpu={asking}", FORMAT]
        asked = await needed(
            self._place, query, "a GPU that nvidia-smi shows", "nvidia-smi there, and what it says"
        )
        found = cards(asked.out.decode(errors="replace"))
        if not found:
            said = asked.out.decode(errors="replace").strip()[:100]
            raise DeviceError(
                f"{self._place.device.name}: expected GPUs from nvidia-smi, got {said!r}; try: nvidia-smi -L there"
            )
        taken = {rail for rail, _ in self._cards.values()}
        for card in found:
            rail = f"gpu{card.number}"
            self._cards.setdefault(card.uuid, (rail if rail not in taken else card.uuid, card))
        gpus = {rail: {"name": card.name, "uuid": uuid} for uuid, (rail, card) in self._cards.items()}
        out.fact("gpus", gpus)
        out.fact("nvidia_driver", found[0].driver)

    def _rows(self, found: Reading, out: Outlet) -> Iterator[tuple[Stream, Row]]:
        rail, card = self._cards[found.uuid]
        instant, average, state = self.streams
        is_mean = plain_is_mean(card.name, is_new=(card.capability or 0.0) >= AMPERE)
        meaning = {
            "power.draw.instant": instant,
            "power.draw.average": average,
            "power.draw": average if is_mean else instant,
        }
        for name, watts in found.watts.items():
            stream = meaning[name]
            out.rail(stream, (mean if stream is average else gauge)(rail))
            yield stream, {"rail": rail, "watts": watts}
        yield state, {"gpu": card.number, **found.state}

    def check(self) -> Health:
        """Tell whether this machine has it."""
        return here(self.tool[0], CURE)

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"tool": [sys.executable, "-c", SHIM], "interval_ms": 20}}

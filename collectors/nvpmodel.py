"""Condition ``nvpmodel``: a Jetson's power mode and its clocks, read before and after a run, and set for it where the recipe says so."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import PositiveFloat

from melt_stream.collector import Health
from melt_stream.collectors._condition import CONDITION, Holding, Step, tool_health
from melt_stream.collectors._jetson_power import FREE, PINNED, clocks, clocks_state, mode, mode_state
from melt_stream.collectors._undoing import Command
from melt_stream.devices import Device, Local, Place
from melt_stream.outlet import Outlet

__all__ = ["CONDITION", "Nvpmodel"]

STORED = ".melt_stream_jetson_clocks"
"""Where jetson_clocks stores what it pins: in the folder that commands begin in, which is the user's home over ssh."""
RESTORE = 'file=$1; shift; [ ! -e "$file" ] || "$@"'
"""Where nothing was stored, nothing was pinned."""
EXAMPLE = """case $1 in
nvpmodel) printf 'NV Power Mode: MAXN\\n0\\n' ;;
*) echo 'GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000' ;;
esac"""


@dataclass
class Nvpmodel:
    """Record the power mode and what ``jetson_clocks --show`` tells, before and after; set what is given.

    Runs on the board that ``device`` names. A mode that needs a reboot is refused. Both tools want root: as another user, say
    ``through = ["sudo", "-n"]``.
    """

    _: KW_ONLY
    mode: Annotated[int, Ge(0)] | None = None
    """The number of a power mode, as in /etc/nvpmodel.conf."""
    jetson_clocks: bool | None = None
    """Whether all clocks are pinned at the mode's maximum."""
    through: list[str] = field(default_factory=list)
    """What goes before each command."""
    patience_s: PositiveFloat = 30.0
    """How long it is tried at the end to put back, and then to look whether it is; a board that is gone may come back."""
    order: ClassVar[int] = -1
    _device: Device = field(default_factory=Local, init=False, repr=False, compare=False)

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"through": ["sh", "-c", EXAMPLE, "sh"]}}

    def on(self, place: Place) -> Nvpmodel:
        """Return the one that does it there."""
        made = replace(self)
        made._device = place.device
        return made

    def check(self) -> Health:
        return tool_health(self._words("nvpmodel"), "a Jetson")

    async def collect(self, out: Outlet) -> None:
        await Holding(out, self._device, self.steps(), self.patience_s).hold()

    def steps(self) -> list[Step]:
        """The mode, and then the clocks within it."""
        wanted = None if self.mode is None else str(self.mode)
        pinned = {None: None, True: PINNED, False: FREE}[self.jetson_clocks]
        return [
            Step(
                "nvpmodel", self._words("nvpmodel", "-q"), mode_state, self._switch, wanted, detail=mode,
                hint=self._why_not,
            ),
            Step(
                "jetson_clocks", self._words("jetson_clocks", "--show"), clocks_state, self._pin, pinned, detail=clocks
            ),
        ]  # fmt: skip

    def _switch(self, state: str) -> list[Command]:
        return [Command(self._words("nvpmodel", "-m", state), answer="no\n")]

    def _pin(self, state: str) -> list[Command]:
        if state == FREE:
            restore = self._words("jetson_clocks", "--restore", STORED)
            return [
                Command(("sh", "-c", RESTORE, "sh", STORED, *restore)),
                Command(self._words("rm", "-f", STORED)),
            ]
        store = Command(self._words("jetson_clocks", "--store", STORED), answer="y\n")
        return [store, Command(self._words("jetson_clocks"))]

    def _why_not(self, said: str) -> str:
        if "reboot" in said.lower():
            return f"this mode needs a reboot, which no run does: sudo nvpmodel -m {self.mode}, say yes, and record when it is up again"
        return "the modes of /etc/nvpmodel.conf"

    def _words(self, *words: str) -> tuple[str, ...]:
        return (*self.through, *words)

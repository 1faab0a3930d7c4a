"""Condition ``usb_power``: a device's USB supply is cut while the run measures, and restored afterwards."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from pydantic import PositiveFloat

from melt_stream.collectors._alone import alone
from melt_stream.collectors._condition import CONDITION, Holding, Step
from melt_stream.collectors._undoing import Command
from melt_stream.collectors._usb_switches import Switch, uhubctl, ykush
from melt_stream.devices import Local, Place
from melt_stream.devices.adb import Adb
from melt_stream.errors import ConfigError
from melt_stream.outlet import Outlet

__all__ = ["CONDITION", "UsbPower"]

log = logging.getLogger(__name__)
ON, OFF = "on", "off"


@dataclass
class UsbPower:
    """Cut the supply when all else has begun to measure, and restore it before all else ends.

    By ``hub`` and ``port`` (uhubctl), by ``ykush`` and ``port`` (ykushcmd), or by the commands ``cut`` and ``restore``. Runs on this
    machine, whatever ``device`` says. With the supply the data are gone: adb over USB is, adb over Wi-Fi is not.
    """

    _: KW_ONLY
    hub: str = ""
    """A hub's location as uhubctl shows it, such as ``1-1.4``."""
    port: Annotated[int, Ge(1)] | None = None
    """Of the hub, or of the YKUSH."""
    ykush: Literal["", "ykush", "ykushxs", "ykush2", "ykush3"] = ""
    """Which of Yepkit's boards it is."""
    serial: str = ""
    """Of the YKUSH; empty: the only one."""
    cut: list[str] = field(default_factory=list)
    restore: list[str] = field(default_factory=list)
    state: list[str] = field(default_factory=list)
    """A command that prints whether there is power; none: there is taken to be some before the run, and it is not checked."""
    powered: str = r"(?i)\bon\b"
    """A regular expression that matches what ``state`` prints where there is."""
    unpowered: str = r"(?i)\boff\b"
    """A regular expression that matches where there is none."""
    through: list[str] = field(default_factory=list)
    """What goes before uhubctl or ykushcmd: ``["sudo", "-n"]``."""
    settle_s: Annotated[float, Ge(0)] = 2.0
    """To wait after each switching: for capacitors, and for the phone to see it."""
    patience_s: PositiveFloat = 10.0
    """How long it is tried at the end to restore, and then to look whether it is."""
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        said = [name for name in ("hub", "ykush", "cut") if getattr(self, name)]
        if len(said) != 1:
            raise ConfigError(f"usb_power: expected one of hub, ykush, cut, got {', '.join(said) or 'none'}")
        if bool(self.cut) != bool(self.restore):
            raise ConfigError("usb_power: expected the commands cut and restore, got one of them")
        if self.port is None and (self.hub or self.ykush not in {"", "ykushxs"}):
            raise ConfigError(f"port: expected the {said[0]}'s port, got none")
        for name in ("powered", "unpowered"):
            try:
                re.compile(getattr(self, name))
            except re.error as exc:
                raise ConfigError(f"{name}: expected a regular expression, got {exc}") from exc

    @staticmethod
    def example() -> dict[str, Any]:
        commands = {"cut": ["true"], "restore": ["true"], "state": ["echo", "off"]}
        return {"kind": "plain", "config": {"settle_s": 0.0, **commands}}

    def on(self, place: Place) -> UsbPower:
        """Return it as it is: the switch is on our desk. Warns where the device is reached over what is cut."""
        if isinstance(place.device, Adb) and place.device.over_usb:
            log.warning(
                "usb_power: %s is reached by adb over USB: what is read there has a gap while the supply is cut; "
                'try: adb over Wi-Fi (adb tcpip 5555, then adb = "HOST:5555")',
                place.device.name,
            )
        return replace(self)

    async def collect(self, out: Outlet) -> None:
        switch = self.switch()
        with alone(f"usb {' '.join(switch.cut)}") as lock:
            await Holding(out, Local(), [self.step(switch)], self.patience_s, (lock,)).hold()

    def switch(self) -> Switch:
        """The commands that do it."""
        if self.hub:
            assert self.port is not None
            return uhubctl(self.through, self.hub, self.port)
        if self.ykush:
            return ykush(self.through, self.ykush, self.serial, self.port)
        return Switch(self.cut, self.restore, self.state, self.powered, self.unpowered)

    def step(self, switch: Switch) -> Step:
        """Whether there is power."""

        def told(said: str) -> str:
            powered, unpowered = (re.search(it, said) for it in (switch.powered, switch.unpowered))
            if powered is None and unpowered is None:
                raise ValueError(f"neither {switch.powered!r} nor {switch.unpowered!r}")
            return ON if powered else OFF

        def change(state: str) -> Sequence[Command]:
            return [Command(switch.restore if state == ON else switch.cut, self.settle_s)]

        return Step("usb_power", switch.state, told, change, OFF, otherwise=ON)

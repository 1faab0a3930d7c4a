"""Condition ``phone_state``: an Android phone's screen, brightness, radios and settings for the time of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from pydantic import PositiveFloat

from melt_stream.collector import Health
from melt_stream.collectors._android_steps import Phone
from melt_stream.collectors._condition import CONDITION, Holding, Step, tool_health
from melt_stream.devices import Device, Local, Place
from melt_stream.devices.adb import Adb
from melt_stream.errors import ConfigError
from melt_stream.outlet import Outlet

__all__ = ["CONDITION", "PhoneState"]

BRIGHTNESS = ("screen_brightness_mode", "screen_brightness")
A_DAY_MS = 86_400_000


@dataclass
class PhoneState:
    """Set what is given, see that it is so, and put it back afterwards; what is not given is left alone.

    Runs on the phone that ``device`` names. Airplane mode, or Wi-Fi off, is refused where adb goes through the phone's Wi-Fi.
    """

    _: KW_ONLY
    screen: Literal["on", "off"] | None = None
    """A key's press wakes it, or has it sleep; ``on`` also has it stay on for a day, unless ``screen_off_ms`` says otherwise. Nothing is unlocked."""
    screen_off_ms: Annotated[int, Ge(0)] | None = None
    """The time-out of the screen."""
    brightness: Annotated[int, Ge(0)] | None = None
    """Of the screen, mostly 0 to 255; the automatic is switched off for it."""
    stay_on: bool | None = None
    """Whether the screen stays on while the phone is charged."""
    airplane: bool | None = None
    """Airplane mode (Android 11)."""
    wifi: bool | None = None
    bluetooth: bool | None = None
    location: bool | None = None
    do_not_disturb: bool | None = None
    """Total silence."""
    pretend_unplugged: bool | None = None
    """Have Android believe that it is not charged, so that it saves power as on battery. It is charged all the same: see ``usb_power``."""
    settings: dict[str, str] = field(default_factory=dict)
    """Any other: ``"global/low_power" = "0"``, in the namespaces system, secure and global."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts for files such as a kernel's switch of charging; mostly root's (``through``)."""
    through: list[str] = field(default_factory=list)
    """What goes before each command: ``["su", "0"]``."""
    patience_s: PositiveFloat = 30.0
    """How long it is tried at the end to put back, and then to look whether it is; a phone that is gone may come back."""
    order: ClassVar[int] = -1
    _device: Device = field(default_factory=Local, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.settings:
            if name.partition("/")[0] not in {"system", "secure", "global"} or not name.partition("/")[2]:
                raise ConfigError(f"settings: expected system/KEY, secure/KEY or global/KEY, got {name!r}")

    @staticmethod
    def example() -> dict[str, Any]:
        said = ["sh", "-c", "echo 120", "sh"]
        return {
            "kind": "plain",
            "config": {"settings": {"system/a": "120", "system/b": "120"}, "through": said},
        }

    def on(self, place: Place) -> PhoneState:
        """Return the one that does it there. Raises ``ConfigError`` where it would cut the link that it needs."""
        device = place.device
        if isinstance(device, Adb) and device.over_wifi and (self.airplane or self.wifi is False):
            what = "airplane = true" if self.airplane else "wifi = false"
            raise ConfigError(
                f"phone_state: {what}: expected adb over a cable for it, got {device.serial}, which goes through the phone's Wi-Fi "
                "and would be cut, with nobody there to put it back; try: adb over USB, or do without"
            )
        made = replace(self)
        made._device = device
        return made

    def check(self) -> Health:
        return tool_health([*self.through, "settings"], "a phone")

    async def collect(self, out: Outlet) -> None:
        await Holding(out, self._device, self.steps(), self.patience_s).hold()

    def steps(self) -> list[Step]:
        """What is set, in this order."""
        phone = Phone(tuple(self.through))
        return [
            *[phone.setting(name, value) for name, value in self._settings().items()],
            *[phone.file(path, text) for path, text in self.files.items()],
            *self._switches(phone),
            *([phone.screen(self.screen)] if self.screen else []),
        ]

    def _settings(self) -> Mapping[str, str]:
        settings = dict(self.settings)
        time_out = A_DAY_MS if self.screen == "on" and self.screen_off_ms is None else self.screen_off_ms
        if time_out is not None:
            settings["system/screen_off_timeout"] = str(time_out)
        if self.brightness is not None:
            mode, value = BRIGHTNESS
            settings |= {f"system/{mode}": "0", f"system/{value}": str(self.brightness)}
        if self.stay_on is not None:
            settings["global/stay_on_while_plugged_in"] = "7" if self.stay_on else "0"
        if self.location is not None:
            settings["secure/location_mode"] = "3" if self.location else "0"
        return settings

    def _switches(self, phone: Phone) -> list[Step]:
        known = {
            "airplane": phone.airplane, "wifi": phone.wifi, "bluetooth": phone.bluetooth,
            "do_not_disturb": phone.do_not_disturb, "pretend_unplugged": phone.pretend_unplugged,
        }  # fmt: skip
        asked = {name: getattr(self, name) for name in known}
        return [known[name](on) for name, on in asked.items() if on is not None]

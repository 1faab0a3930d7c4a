"""What can be set on an Android phone from adb's shell, without root: the command that reads each, and those that set it.

Sources: AOSP's SettingsService, ConnectivityService, NotificationShellCmd, PowerManagerService and BatteryService.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from melt_stream.collectors._condition import Step
from melt_stream.collectors._undoing import Command

UNSET = "null"
"""What ``settings get`` prints where there is no such setting."""
ZEN = {"0": "off", "1": "priority", "2": "none", "3": "alarms"}
"""Settings.Global.ZEN_MODE, as ``cmd notification set_dnd`` calls them."""
RADIO = {"0": "off", "1": "on", "2": "on", "3": "off"}
"""Settings.Global.WIFI_ON and BLUETOOTH_ON: 2 is on, and 3 off, by airplane mode."""
AWAKE = re.compile(r"\bmWakefulness=(\w+)")


@dataclass(frozen=True)
class Phone:
    """Makes steps; ``through`` goes before each command."""

    through: tuple[str, ...] = ()

    def setting(self, name: str, value: str) -> Step:
        """A setting ``namespace/key``; an automatic may change the brightness at any time."""
        namespace, _, key = name.partition("/")

        def change(state: str) -> list[Command]:
            if state == UNSET:
                return [self._do("settings", "delete", namespace, key)]
            return [self._do("settings", "put", namespace, key, state)]

        read, drifts = self._words("settings", "get", namespace, key), name == "system/screen_brightness"
        return Step(name, read, _one_line, change, value, drifts=drifts)

    def file(self, path: str, text: str) -> Step:
        """A file's text."""
        write = ("sh", "-c", 'printf %s "$2" >"$1"', "sh", path)
        return Step(
            path, self._words("cat", path), str.strip, lambda state: [self._do(*write, state)], text.strip()
        )

    def screen(self, state: str) -> Step:
        """Whether the phone is awake; it dozes, dreams or sleeps else."""

        def told(said: str) -> str:
            if (found := AWAKE.search(said)) is None:
                raise ValueError("no mWakefulness= in it")
            return "on" if found[1] == "Awake" else "off"

        def change(state: str) -> list[Command]:
            return [self._do("input", "keyevent", "KEYCODE_WAKEUP" if state == "on" else "KEYCODE_SLEEP")]

        return Step("screen", self._words("dumpsys", "power"), told, change, state)

    def airplane(self, on: bool) -> Step:
        """Airplane mode."""
        names = {"enabled": "on", "disabled": "off"}

        def change(state: str) -> list[Command]:
            return [
                self._do("cmd", "connectivity", "airplane-mode", "enable" if state == "on" else "disable")
            ]

        words = self._words("cmd", "connectivity", "airplane-mode")
        return Step("airplane", words, lambda said: _named(names, said), change, _on(on))

    def wifi(self, on: bool) -> Step:
        """Wi-Fi."""
        return self._radio("wifi", "wifi_on", on)

    def bluetooth(self, on: bool) -> Step:
        """Bluetooth."""
        return self._radio("bluetooth", "bluetooth_on", on)

    def do_not_disturb(self, on: bool) -> Step:
        """Whether nothing, or all, may disturb; put back to what it was of Android's four."""
        words = self._words("settings", "get", "global", "zen_mode")

        def change(state: str) -> list[Command]:
            return [self._do("cmd", "notification", "set_dnd", state)]

        return Step("do_not_disturb", words, lambda said: _named(ZEN, said), change, "none" if on else "off")

    def pretend_unplugged(self, on: bool) -> Step:
        """Whether Android's own idea of the charger is replaced. It is charged all the same."""

        def told(said: str) -> str:
            if "Battery Service state" not in said:
                raise ValueError("no battery service's state")
            return "on" if "UPDATES STOPPED" in said else "off"

        def change(state: str) -> list[Command]:
            return [self._do("dumpsys", "battery", "unplug" if state == "on" else "reset")]

        return Step("pretend_unplugged", self._words("dumpsys", "battery"), told, change, _on(on))

    def _radio(self, name: str, key: str, on: bool) -> Step:
        def change(state: str) -> list[Command]:
            return [self._do("svc", name, "enable" if state == "on" else "disable")]

        words = self._words("settings", "get", "global", key)
        return Step(name, words, lambda said: _named(RADIO, said), change, _on(on))

    def _words(self, *words: str) -> tuple[str, ...]:
        return (*self.through, *words)

    def _do(self, *words: str) -> Command:
        return Command(self._words(*words))


def _on(on: bool) -> str:
    return "on" if on else "off"


def _one_line(said: str) -> str:
    if not said or not said.isprintable():
        raise ValueError("not one line of text")
    return said


def _named(names: dict[str, str], said: str) -> str:
    if said not in names:
        raise ValueError(f"none of {', '.join(names)}")
    return names[said]

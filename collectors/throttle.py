"""What holds a machine back: its cooling devices' states, and a Jetson's power mode."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, integer, parts, text, unique, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream

COOLING = "sys/class/thermal/cooling_device*"
STATUS, MODES = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"
POWER_MODE = Stream("power_mode", mode=int, name=str)
_MODE = re.compile(r"(?:pmode:)?(\d{1,6})")
_NAMED = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d{1,6})\s+NAME=(\S+)\s*>", re.MULTILINE)


@dataclass
class Throttle(FileSensor):
    """How far each of the kernel's cooling devices is turned on: a fan, or a limit on a CPU's or GPU's frequency.

    A state of 0 holds nothing back. On a Jetson also the mode that nvpmodel set; its names are in the fact ``power_modes``.
    """

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 2.0
    """Reads a second."""

    stream = Stream("throttle", cooling=str, state=int, limit=int)
    _names: dict[int, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        folders = [path.rpartition("/")[0] for path in find(f"{COOLING}/cur_state")]
        paths = {f"{folder.rpartition('/')[2]}/cur_state": f"{folder}/cur_state" for folder in folders}
        for folder in folders:
            for name in ("type", "max_state"):
                paths[f"{folder.rpartition('/')[2]}/{name}"] = Constant(f"{folder}/{name}")
        if find(STATUS):
            paths["status"] = STATUS
            if find(MODES):
                paths["modes"] = Constant(MODES)
        return paths

    def parse(self, files: Files) -> list[Row | tuple[Stream, Row]]:
        self._names = self._names or power_modes(text(files, "modes") or "")
        rows: list[Row | tuple[Stream, Row]] = [*_cooling(files), *self._mode(files)]
        if not rows:
            kind = DeviceError if self.first is None else Transient
            raise kind(
                f"throttle: expected a cooling device's state or a power mode, got none; {why_not(files)}"
            )
        return rows

    def _mode(self, files: Files) -> Iterator[tuple[Stream, Row]]:
        if match := _MODE.fullmatch(text(files, "status") or ""):
            yield POWER_MODE, {"mode": int(match[1]), "name": self._names.get(int(match[1]))}

    def facts(self) -> Mapping[str, Any]:
        return {"power_modes": self._names} if self._names else {}

    def check(self) -> Health:
        there = health(self, "cooling device", "sys/class/thermal", "bare metal: virtual machines have none")
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        told = [f"{row['cooling']} {row['state']} of {row['limit']}" for row in _cooling(files)]
        told += [f"power mode {row['mode']}" for _, row in self._mode(files)]
        if not told:
            return Health(False, f"no state can be read: {why_not(files)}", "root")
        return Health(True, ", ".join(told))

    @staticmethod
    def example() -> dict[str, Any]:
        base = "sys/class/thermal/cooling_device"
        devices = [("pwm-fan", "2", "4"), ("thermal-cpufreq-0", "0", "28")]
        tree = {
            f"{base}{n}/{name}": value
            for n, values in enumerate(devices)
            for name, value in zip(("type", "cur_state", "max_state"), values, strict=True)
        }
        modes = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=MODE_15W >\n"
        return {"kind": "files", "tree": {**tree, STATUS: "pmode:0001", MODES: modes}, "config": {}}


def _cooling(files: Files) -> Iterator[Row]:
    """Return the row of every cooling device whose state can be read."""
    names = unique({part: text(files, f"{part}/type") or part for part in parts(files, "cur_state")})
    for part, name in names.items():
        if (state := integer(files, f"{part}/cur_state")) is not None:
            yield {"cooling": name, "state": state, "limit": integer(files, f"{part}/max_state")}


def power_modes(text: str) -> dict[int, str]:
    """Return the names of the power modes in nvpmodel.conf, by number."""
    return {int(number): name for number, name in _NAMED.findall(text)}

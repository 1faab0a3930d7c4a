"""What holds a machine back: its cooling devices' states, a Jetson's over-current events and power mode."""

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
OC = "sys/class/hwmon/hwmon*/oc[1-9]"
"""A Jetson's driver soctherm_oc, from JetPack 5 on: oc1 is under-voltage, oc2 average and oc3 instantaneous over-current."""
OVERCURRENT = Stream("overcurrent", event=str, count=int, throttles=bool)
POWER_MODE = Stream("power_mode", mode=int, name=str)
_MODE = re.compile(r"(?:pmode:)?(\d{1,6})")
_NAMED = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d{1,6})\s+NAME=(\S+)\s*>", re.MULTILINE)


@dataclass
class Throttle(FileSensor):
    """How far each of the kernel's cooling devices is turned on: a fan, or a limit on a CPU's or GPU's frequency.

    A state of 0 holds nothing back. On a Jetson also how often over-current held it back since it was started, and the mode that nvpmodel
    set; its names are in the fact ``power_modes``.
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
        for name in ("event_cnt", "throt_en"):
            paths |= {f"{_event(path)}/{name}": path for path in find(f"{OC}_{name}")}
        if find(STATUS):
            paths["status"] = STATUS
            if find(MODES):
                paths["modes"] = Constant(MODES)
        return paths

    def parse(self, files: Files) -> list[Row | tuple[Stream, Row]]:
        self._names = self._names or power_modes(text(files, "modes") or "")
        rows: list[Row | tuple[Stream, Row]] = [
            *_cooling(files),
            *_overcurrent(files),
            *self._mode(files),
        ]
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
        told += [f"{row['event']} {row['count']} times" for _, row in _overcurrent(files)]
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
        hwmon = "sys/class/hwmon/hwmon3/oc"
        tree |= {f"{hwmon}{n}_event_cnt": str(7 * n) for n in (1, 2, 3)} | {
            f"{hwmon}{n}_throt_en": "1" for n in (1, 2, 3)
        }
        return {"kind": "files", "tree": {**tree, STATUS: "pmode:0001", MODES: modes}, "config": {}}


def _cooling(files: Files) -> Iterator[Row]:
    """Return the row of every cooling device whose state can be read."""
    names = unique({part: text(files, f"{part}/type") or part for part in parts(files, "cur_state")})
    for part, name in names.items():
        if (state := integer(files, f"{part}/cur_state")) is not None:
            yield {"cooling": name, "state": state, "limit": integer(files, f"{part}/max_state")}


def _event(path: str) -> str:
    """``hwmon3/oc1`` of a path."""
    folder, _, name = path.rpartition("/")
    return f"{folder.rpartition('/')[2]}/{name.partition('_')[0]}"


def _overcurrent(files: Files) -> Iterator[tuple[Stream, Row]]:
    """Return the row of every counter of events that can be read."""
    names = unique({part: part.rpartition("/")[2] for part in parts(files, "event_cnt")})
    for part, name in names.items():
        if (count := integer(files, f"{part}/event_cnt")) is not None:
            enabled = integer(files, f"{part}/throt_en")
            throttles = None if enabled is None else bool(enabled)
            yield OVERCURRENT, {"event": name, "count": count, "throttles": throttles}


def power_modes(text: str) -> dict[int, str]:
    """Return the names of the power modes in nvpmodel.conf, by number."""
    return {int(number): name for number, name in _NAMED.findall(text)}

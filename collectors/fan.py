"""Fans: how hard they are driven, and how fast they turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, integer, text, unique, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream
from melt_stream.units import PERCENT

HWMON = "sys/class/hwmon/hwmon*"
OLD = "sys/devices/pwm-fan"
"""JetPack 4."""
FULL = 255
"""The kernel's rule for ``pwm*``: 0 to 255."""
LOOSE = "rpm"
"""A Jetson's tachometer is a chip of its own, beside that of the fan that it counts."""


@dataclass
class Fan(FileSensor):
    """Every fan of the hwmon tree, a row each; what nothing tells is null. A Jetson's one fan and its one tachometer are one row."""

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 2.0
    """Reads a second."""

    stream = Stream("fan", fan=str, pwm=PERCENT, rpm=float)

    def files(self, find: Find) -> Mapping[str, str]:
        paths: dict[str, str] = {}
        for pattern in ("pwm[1-9]", "fan[1-9]_input", LOOSE):
            for path in find(f"{HWMON}/{pattern}"):
                chip, _, name = path.removeprefix("sys/class/hwmon/").partition("/")
                paths[f"{chip}/{name.removesuffix('_input')}"] = path
        for chip in {key.partition("/")[0] for key in paths}:
            paths |= {f"{chip}/name": Constant(path) for path in find(f"sys/class/hwmon/{chip}/name")}
        old = {"cur_pwm": "pwm1", "rpm_measured": "fan1"}
        return paths | {
            f"pwm-fan/{old[p.rpartition('/')[2]]}": p for name in old for p in find(f"{OLD}/{name}")
        }

    def parse(self, files: Files) -> list[Row]:
        if rows := list(_rows(files)):
            return rows
        kind = DeviceError if self.first is None else Transient
        raise kind(f"fan: expected a fan's drive or speed, got none; {why_not(files)}")

    def check(self) -> Health:
        there = health(self, "fan", "sys/class/hwmon", "a machine that has one, and its driver")
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        told = [f"{row['fan']} {row['pwm'] or row['rpm'] or 0:.0f}" for row in _rows(files)]
        return Health(
            bool(told), ", ".join(told) or f"no fan can be read: {why_not(files)}", "" if told else "root"
        )

    @staticmethod
    def example() -> dict[str, Any]:
        base = "sys/class/hwmon"
        tree = {
            f"{base}/hwmon0/name": "pwmfan", f"{base}/hwmon0/pwm1": "79", f"{base}/hwmon2/name": "generic_pwm_tachometer",
            f"{base}/hwmon2/rpm": "1301",
        }  # fmt: skip
        return {"kind": "files", "tree": tree, "config": {}}


def _rows(files: Files) -> Iterator[Row]:
    """Return the row of each fan of which anything can be read."""
    chips = sorted({key.partition("/")[0] for key in files})
    names = unique({chip: text(files, f"{chip}/name") or chip for chip in chips})
    fans: dict[str, tuple[float | None, float | None]] = {}
    loose: dict[str, float] = {}
    for chip in chips:
        numbers = sorted({key[-1] for key in files if key.startswith((f"{chip}/pwm", f"{chip}/fan"))})
        for n in numbers:
            name = names[chip] if len(numbers) == 1 else f"{names[chip]}-{n}"
            fans[name] = _drive(integer(files, f"{chip}/pwm{n}")), _speed(integer(files, f"{chip}/fan{n}"))
        if (speed := _speed(integer(files, f"{chip}/{LOOSE}"))) is not None:
            loose[names[chip]] = speed
    if len(fans) == len(loose) == 1 and next(iter(fans.values()))[1] is None:
        ((name, (drive, _)),), ((_, speed),) = fans.items(), loose.items()
        fans, loose = {name: (drive, speed)}, {}
    for name, (pwm, rpm) in {**fans, **{name: (None, rpm) for name, rpm in loose.items()}}.items():
        if pwm is not None or rpm is not None:
            yield {"fan": name, "pwm": pwm, "rpm": rpm}


def _drive(pwm: int | None) -> float | None:
    return None if pwm is None or not 0 <= pwm <= FULL else 100 * pwm / FULL


def _speed(rpm: int | None) -> float | None:
    return None if rpm is None or rpm < 0 else float(rpm)

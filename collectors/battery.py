"""What a battery delivers: the fuel gauge of a laptop or a phone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._gauge import GaugeUnit, Reading, guess_unit, sign_of, volts_of
from melt_stream.collectors._sysfs import health, integer, parts, text, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Rail
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream
from melt_stream.units import PERCENT, A, V, W

SUPPLIES = "sys/class/power_supply"
NAMES = ("type", "scope", "status", "current_now", "power_now", "voltage_now", "capacity", "online")
CONSTANT = ("/type", "/scope")
CURRENT = Stream(
    "battery", rail=str, status=str, plugged=bool, volts=V, amps=A, capacity=PERCENT, reported=int
)
"""Gauges that give a current; volts x amps is the power."""
POWER = Stream(
    "battery_power", rail=str, status=str, plugged=bool, watts=W, voltage=V, capacity=PERCENT, reported=int
)
"""Gauges that give a power only."""


@dataclass
class Battery(FileSensor):
    """Discharge of every battery: V and A where the gauge gives a current, else W, a stream each.

    While a battery charges, is full, or stands beside a plugged supply, its current says nothing of the load: amps
    and watts are null then. They are positive while it discharges, whatever sign the gauge gives; ``reported`` keeps
    the gauge's own number. A gauge stuck at 0 measures nothing either.
    """

    unit: GaugeUnit = "auto"
    """Whether the gauge counts uA and uW (the kernel's rule) or mA and mW (many phones)."""
    ignore_plugged: bool = False
    """True where ``online`` of a charger says yes without one, so that ``status`` alone decides."""
    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 2.0
    """Reads a second; gauges refresh every 0.25 to 30 s."""

    elsewhere = "perfetto_power or dumpsys_battery"
    stream = CURRENT
    _newest: Files | None = field(default=None, init=False, repr=False, compare=False)
    _units: dict[str, GaugeUnit] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        paths = (path for name in NAMES for path in find(f"{SUPPLIES}/*/{name}"))
        return {
            path.removeprefix(f"{SUPPLIES}/"): Constant(path) if path.endswith(CONSTANT) else path
            for path in paths
        }

    def parse(self, files: Files) -> list[tuple[Stream, Row]]:
        names = batteries(files)
        if not names:
            raise DeviceError(
                f"battery: expected a supply of type Battery with a gauge, got {parts(files, 'type')}"
            )
        self._newest = files
        rows = [self._row(name, reading, files) for name in names if (reading := _reading(name, files))]
        if not rows:
            raise Transient(f"battery: no gauge of {names} could be read: {why_not(files)}")
        return rows

    def _row(self, name: str, got: Reading, files: Files) -> tuple[Stream, Row]:
        status, plugged = text(files, f"{name}/status"), _plugged(files)
        measures = status == "Discharging" and (self.ignore_plugged or not plugged) and got.number != 0
        size = self._size(name, got) if measures else None
        row: Row = {
            "rail": name, "status": status, "plugged": plugged,
            "capacity": files.number(f"{name}/capacity"), "reported": got.number,
        }  # fmt: skip
        if got.is_power:
            return POWER, {**row, "watts": size, "voltage": got.volts}
        return CURRENT, {**row, "amps": size, "volts": got.volts}

    def _size(self, name: str, got: Reading) -> float:
        return abs(got.number) * (1e-3 if self._unit(name, got) == "milli" else 1e-6)

    def _unit(self, name: str, got: Reading) -> GaugeUnit:
        if name not in self._units:
            self._units[name] = guess_unit(got) if self.unit == "auto" else self.unit
        return self._units[name]

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        source = "fuel gauge; its data sheet, where the chip is known"
        for name, reading in _readings(self._newest).items():
            stream = POWER if reading.is_power else CURRENT
            yield stream, Rail(name, "battery", "gauge", instrument="gauge", source=source)

    def facts(self) -> Mapping[str, Any]:
        how = "by size of the first discharging reading" if self.unit == "auto" else "configured"
        gauges = {
            name: {
                "unit": self._units.get(name, "not known before it discharges"),
                "decided": how,
                "reads": "power_now" if reading.is_power else "current_now",
                "first": reading.number,
                "sign": sign_of(text(self._newest, f"{name}/status"), reading.number)
                if self._newest
                else None,
            }
            for name, reading in _readings(self._newest).items()
        }
        return {"battery_gauges": gauges}

    def check(self) -> Health:
        there = health(
            self, "power supply", SUPPLIES, "a laptop or a phone: this machine runs on mains power"
        )
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        rows = [self._row(name, got, files)[1] for name in batteries(files) if (got := _reading(name, files))]
        if not rows:
            return Health(
                False, f"no battery with a readable gauge among {parts(files, 'type')}", "a laptop or a phone"
            )
        states = ", ".join(f"{row['rail']} {row['status']}" for row in rows)
        if all(row["status"] == "Discharging" and row["reported"] == 0 for row in rows):
            return Health(False, f"{states}: the gauge is stuck at 0", "a meter: this gauge measures nothing")
        if all(row.get("amps", row.get("watts")) is None for row in rows):
            return Health(False, f"{states}: measures nothing of the load", "unplug the charger")
        return Health(True, states)

    @staticmethod
    def example() -> dict[str, Any]:
        supplies = {
            "BAT0": {
                "type": "Battery",
                "status": "Discharging",
                "voltage_now": "11400000",
                "current_now": "804000",
            },
            "AC": {"type": "Mains", "online": "0"},
        }
        tree = {
            f"{SUPPLIES}/{s}/{name}": value for s, files in supplies.items() for name, value in files.items()
        }
        return {"kind": "files", "tree": tree, "config": {}}


def batteries(files: Files) -> list[str]:
    """Return the supplies that are the machine's batteries: not chargers, and not those of a mouse."""
    return [
        name
        for name in sorted({*parts(files, "current_now"), *parts(files, "power_now")})
        if text(files, f"{name}/type") == "Battery" and text(files, f"{name}/scope") != "Device"
    ]


def _readings(files: Files | None) -> dict[str, Reading]:
    if files is None:
        return {}
    return {name: reading for name in batteries(files) if (reading := _reading(name, files))}


def _reading(name: str, files: Files) -> Reading | None:
    number = files.number(f"{name}/voltage_now")
    volts = None if number is None else volts_of(number)
    if (current := integer(files, f"{name}/current_now")) is not None:
        return Reading(current, volts, is_power=False)
    if (power := integer(files, f"{name}/power_now")) is not None:
        return Reading(power, volts, is_power=True)
    return None


def _plugged(files: Files) -> bool:
    batteries_too = (name for name in parts(files, "online") if text(files, f"{name}/type") != "Battery")
    return any((integer(files, f"{name}/online") or 0) > 0 for name in batteries_too)

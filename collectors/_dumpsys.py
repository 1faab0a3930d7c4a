"""What Android's ``dumpsys battery`` and ``dumpsys thermalservice`` print. Pure.

Sources: AOSP's BatteryService and ThermalManagerService (their dump), android.hardware.thermal's TemperatureType.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

STATUSES = {1: "Unknown", 2: "Charging", 3: "Discharging", 4: "Not charging", 5: "Full"}
"""BatteryManager's numbers, in the words of the kernel."""
KINDS = {
    -1: "unknown", 0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb_port", 5: "power_amplifier", 9: "npu", 10: "tpu", 11: "display",
    12: "modem", 13: "soc", 14: "wifi", 15: "camera", 16: "flashlight", 17: "speaker", 18: "ambient", 19: "pogo",
}  # fmt: skip
NO_TEMPERATURES = {6, 7, 8}
"""Voltage, current and percentage at which the battery limits: they come among the temperatures."""
LEVELS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
COLDEST, HOTTEST = -55.0, 200.0
"""Beyond these no chip works: "no reading"."""
LEAST_UAH, MOST_UAH = 300_000, 50_000_000
"""What a phone's or tablet's battery holds when full."""
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(-?[\d.]+(?:E-?\d+)?|NaN), mType=(-?\d{1,9}), mName=([^{}]*?), mStatus=(-?\d{1,9})\}"
)
_STATUS = re.compile(r"^Thermal Status: (\d{1,2})\s*$", re.MULTILINE)
_PAIR = re.compile(r"^ {2}(\w[\w ]*): (\S+)\s*$", re.MULTILINE)
_SERVICE = "Current Battery Service state:"


class Temperature(NamedTuple):
    """One of the HAL's."""

    name: str
    kind: str
    celsius: float | None
    """None where it is none that a chip can have."""
    status: int
    """How far this one throttles, 0 to 6 (``LEVELS``)."""


@dataclass(frozen=True)
class Thermal:
    """What the thermal service says."""

    status: int | None
    """How far the phone throttles, as the service tells apps: 0 to 6 (``LEVELS``)."""
    temperatures: list[Temperature] = field(default_factory=list)
    cached: bool = False
    """True where there are none of the HAL's now, and these are what it said when it last told a change."""


class Battery(NamedTuple):
    """What the battery service says."""

    status: str | None
    plugged: bool | None
    volts: float | None
    percent: float | None
    celsius: float | None
    charge: int | None
    """As it is; uA.h by Android's rule."""


def thermal(text: str) -> Thermal | None:
    """Read a dump of the thermal service; None where it is none."""
    status = _STATUS.search(text)
    now = _section(text, "Current temperatures from HAL:")
    found = _temperatures(now or _section(text, "Cached temperatures:"))
    if status is None and not found:
        return None
    return Thermal(int(status[1]) if status else None, found, cached=bool(found) and not _temperatures(now))


def battery(text: str) -> Battery | None:
    """Read a dump of the battery service; None where it is none. A key counts the first time that it comes."""
    start = text.find(_SERVICE)
    if start < 0:
        return None
    said: dict[str, str] = {}
    for key, value in _PAIR.findall(text[start:]):
        said.setdefault(key.lower(), value)
    powered = [value == "true" for key, value in said.items() if key.endswith(" powered")]
    level, scale = _number(said, "level"), _number(said, "scale") or 100
    millivolts, tenths, charge = (_number(said, key) for key in ("voltage", "temperature", "charge counter"))
    return Battery(
        STATUSES.get(_number(said, "status") or 0),
        any(powered) if powered else None,
        _volts(millivolts) if millivolts else None,
        None if level is None else 100 * level / scale,
        None if tenths is None else tenths / 10,
        charge or None,
    )


def charge_scale(charge: int, percent: float | None) -> float:
    """Return the factor to mA.h of a charge counter: uA.h by the rule, mA.h where a full battery would else hold next to nothing."""
    full = abs(charge) / max(percent or 100, 1) * 100
    return 1.0 if full < LEAST_UAH <= full * 1000 <= MOST_UAH else 1e-3


def _volts(number: int) -> float:
    """Volts of what is mV by the rule, uV or V on some phones."""
    if number < 100:
        return float(number)
    return number * (1e-6 if number >= 100_000 else 1e-3)


def _number(said: Mapping[str, str], key: str) -> int | None:
    value = said.get(key, "")
    return int(value) if re.fullmatch(r"-?\d{1,18}", value) else None


def _section(text: str, title: str) -> str:
    """Return the indented lines below a title."""
    _, found, rest = text.partition(f"{title}\n")
    lines = rest.splitlines() if found else []
    end = next((k for k, line in enumerate(lines) if not line[:1].isspace()), len(lines))
    return "\n".join(lines[:end])


def _temperatures(section: str) -> list[Temperature]:
    return [
        Temperature(name, KINDS.get(int(kind), f"type_{kind}"), _celsius(value), int(status))
        for value, kind, name, status in _TEMPERATURE.findall(section)
        if int(kind) not in NO_TEMPERATURES
    ]


def _celsius(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:  # 1.2.3
        return None
    return value if COLDEST <= value <= HOTTEST else None

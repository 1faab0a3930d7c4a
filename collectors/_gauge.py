"""What a battery's fuel gauge means: its unit and its sign, which differ between makers."""

from __future__ import annotations

from typing import Literal, NamedTuple

GaugeUnit = Literal["auto", "micro", "milli"]
LEAST_WATTS, MOST_WATTS = 0.1, 60.0
"""What a machine that runs a model draws: below the first in uA, and within both in mA, a gauge counts mA."""
USUAL_VOLTS = 3.7
"""Of a lithium cell, where nobody says."""


class Reading(NamedTuple):
    """A gauge's numbers as they are."""

    number: int
    """Its current, or its power where there is none."""
    volts: float | None
    is_power: bool


def guess_unit(got: Reading) -> GaugeUnit:
    """Return ``milli`` where the number means a likely power in mA (mW), and far too little in uA (uW)."""
    watts = abs(got.number) * (1.0 if got.is_power else got.volts or USUAL_VOLTS)
    return "milli" if watts * 1e-6 < LEAST_WATTS <= watts * 1e-3 <= MOST_WATTS else "micro"


def sign_of(status: str | None, number: int) -> str:
    """Say what the gauge's own sign means, which its status decides."""
    if status != "Discharging":
        return "not known before it discharges"
    if not number:
        return "0 while discharging: stuck, or not begun"
    return "positive while discharging" if number > 0 else "negative while discharging"


def volts_of(number: float) -> float:
    """Return volts of a voltage in uV or mV: a battery of less than 0.1 V is one of so many mV."""
    return number * (1e-6 if number >= 100_000 else 1e-3)

"""The energy of a battery's charge, as people write it."""

from __future__ import annotations

import re

from melt_stream.errors import ConfigError

_CHARGE = re.compile(r"([\d.]+)\s*mAh\s*@\s*([\d.]+)\s*V")
_ENERGY = re.compile(r"([\d.]+)\s*(mWh|Wh)")


def joules_of(text: str) -> float:
    """Return the joules of ``4410mAh@3.85V``, ``16.98Wh`` or ``16980mWh``; charge times voltage, as 1 Ah is 3600 C. Raises ``ConfigError``."""
    try:
        if found := _CHARGE.fullmatch(text.strip()):
            return float(found[1]) * 3.6 * float(found[2])
        if found := _ENERGY.fullmatch(text.strip()):
            return float(found[1]) * (3.6 if found[2] == "mWh" else 3600.0)
    except ValueError:
        pass  # two points in a number
    raise ConfigError(f"--battery: expected a charge such as 4410mAh@3.85V, or 16.98Wh, got {text!r}")

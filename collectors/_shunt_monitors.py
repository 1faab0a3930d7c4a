"""Chips that measure the voltage over a shunt and that of the bus: how well a rail of theirs is known. Pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SHUNT_TOLERANCE = 0.01
"""Taken: boards' shunts are 1 % parts or better, and /sys does not say."""


class Chip(NamedTuple):
    """A chip's limits at 25 degC."""

    shunt_step_v: float
    bus_step_v: float
    offset_v: float
    """Over the shunt."""
    gain: float
    """Of each of the two voltages, relative."""

    def accuracy(self, volts: float, amps: float, ohm: float | None) -> dict[str, Any]:
        """Return the fields ``gain``, ``offset`` and ``resolution`` of a rail at this voltage and current; what the shunt is needed for is None without it."""
        return {
            "gain": math.hypot(self.gain, self.gain, SHUNT_TOLERANCE) / math.sqrt(3),
            "offset": None if ohm is None else self.offset_v / math.sqrt(3) / ohm * volts,
            "resolution": None
            if ohm is None
            else math.hypot(self.shunt_step_v / ohm * volts, self.bus_step_v * amps),
        }


def averaging(interval_ms: float | None, hz: float) -> dict[str, Any]:
    """Return the fields ``kind`` and ``window_ns`` of a rail whose chip averages over an update interval and is read at ``hz``.

    Where the interval is no shorter than half the time between reads, a value is a mean; else it is as good as instantaneous.
    """
    window = (interval_ms or 0.0) * 1e6
    is_mean = window * hz >= 0.5e9
    return {"kind": "mean" if is_mean else "gauge", "window_ns": window if is_mean else None}

"""A recording of the emulated Otii: which samples its channels hold, and when each was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass
class Recording:
    """Time on its axis is sample / rate, whatever the device's clock does beside the host's."""

    number: int
    began: int
    """Host time of its second 0, ns."""
    pace: float
    """Seconds of its own a second of the host's: 1.00015 for a clock 150 ppm fast."""
    holes: list[tuple[float, float]] = field(default_factory=list)
    """From which second to which no samples are held, in order; a later one begins after the earlier one's end."""
    ended: float | None = None
    """Seconds when it was stopped; None: it runs."""

    def seconds(self, now: int) -> float:
        """How long it is at a host time."""
        return (now - self.began) / 1e9 * self.pace if self.ended is None else self.ended

    def count(self, hz: float, now: int) -> int:
        """How many samples a channel of this rate holds."""
        made = self._before(self.seconds(now), hz)
        return made - sum(
            self._before(min(stop, self.seconds(now)), hz) - self._before(start, hz)
            for start, stop in self._until(now)
        )

    def times(self, hz: float, index: int, count: int) -> Array:
        """Seconds of the samples at ``index`` and after, holes left out."""
        numbers = np.arange(index, index + count)
        for start, stop in self.holes:
            first = self._before(start, hz)
            numbers = np.where(numbers >= first, numbers + self._before(stop, hz) - first, numbers)
        times: Array = numbers / hz
        return times

    def host(self, seconds: Array) -> Array:
        """Host times, ns, of seconds of the recording."""
        at: Array = self.began + seconds / self.pace * 1e9
        return at

    def _until(self, now: int) -> list[tuple[float, float]]:
        return [hole for hole in self.holes if hole[0] < self.seconds(now)]

    @staticmethod
    def _before(seconds: float, hz: float) -> int:
        """How many samples are taken before a second; one is at 0."""
        return max(0, math.ceil(round(seconds * hz, 6)))


def statistics(channel: str, values: Array, watts: Array, seconds: float) -> dict[str, float]:
    """What ``recording_get_channel_statistics`` tells of some samples."""
    told = {"min": float(values.min()), "max": float(values.max()), "average": float(values.mean())}
    if channel == "mc":
        told |= {"energy": float(watts.mean()) * seconds, "charge": float(values.mean()) * seconds}
    return told

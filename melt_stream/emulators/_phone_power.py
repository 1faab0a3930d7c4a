"""What a phone's chips count while it draws its load: ODPM's energy counters, stamped by its CLOCK_BOOTTIME."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from melt_stream.clock import BOOTTIME, read_host_clocks

CHIPS = {
    "iio:device0": ("s2mpg14-odpm", {"VSYS_PWR_DISPLAY": ("Display", 0.25), "S2M_VDD_CPUCL2": ("CPU(BIG)", 0.4)}),
    "iio:device1": ("s2mpg15-odpm", {"S2S_VDD_G3D": ("GPU", 0.15), "VSYS_PWR_MODEM": ("Modem", 0.2)}),
}  # fmt: skip
"""By folder: the chip, and its rails with their subsystem and their share of the load, which add up to all of it."""
RATE_HZ = 125.0
REFRESH_S = 0.16
"""20 of a chip's samples: it is never asked more often."""
FULL_UAH = 3_652_000
APART_MS = 2
"""The chips are asked one after the other."""


def boottime_ns() -> int:
    """This machine's CLOCK_BOOTTIME."""
    return next(reading.tick for reading in read_host_clocks() if reading.clock == BOOTTIME)


@dataclass
class Counters:
    """Energy since the load began. ``ahead_s`` is how far the phone's CLOCK_BOOTTIME is ahead of this machine's."""

    drawn: Callable[[float, float, float], float]
    """Joules between two of the load's seconds, at so many volts."""
    volts: float
    ahead_s: float
    joules: float = 0.0
    _counted: float = 0.0
    _began_ms: int = field(default=-1)

    @property
    def microamp_hours(self) -> int:
        """What is left of the battery's charge."""
        return FULL_UAH - round(self.joules / self.volts / 3600 * 1e6)

    def files(self, seconds: float) -> dict[str, str]:
        """Count up to now, ``seconds`` of the load, and return what the driver's files say, by chip's folder and name."""
        self._count(seconds)
        at_ms = round(boottime_ns() / 1e6 + self.ahead_s * 1e3)
        if self._began_ms < 0:
            self._began_ms = at_ms
        texts: dict[str, str] = {}
        for number, (folder, (chip, rails)) in enumerate(CHIPS.items()):
            lines = [f"t={at_ms + number * APART_MS}"]
            for channel, (rail, (_, share)) in enumerate(rails.items()):
                lines.append(
                    f"CH{channel}(T={at_ms - self._began_ms})[{rail}], {round(self.joules * share * 1e6)}"
                )
            texts |= {
                f"{folder}/name": f"{chip}\n", f"{folder}/sampling_rate": f"{RATE_HZ:.6f}\n",
                f"{folder}/energy_value": "\n".join(lines) + "\n",
                f"{folder}/available_rails": "".join(f"{r.lower()}({r}):{s}\n" for r, (s, _) in rails.items()),
            }  # fmt: skip
        return texts

    def _count(self, seconds: float) -> None:
        self.joules += self.drawn(self._counted, seconds, self.volts)
        self._counted = seconds

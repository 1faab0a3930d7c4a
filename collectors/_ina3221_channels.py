"""Channels of INA3221 chips in the two layouts of their drivers, and how well they measure. Pure.

``hwmon`` (the kernel's Documentation/hwmon/ina3221.rst) counts channels from 1, NVIDIA's older ``iio`` from 0. Accuracy: TI SBOS576,
at 25 degC: shunt offset +/- 80 uV, gain error +/- 0.25 % of the shunt's and of the bus voltage, both maxima; steps of 40 uV
and 8 mV.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from melt_stream.collectors._shunt_monitors import Chip, averaging
from melt_stream.collectors._sysfs import integer, text, unique
from melt_stream.rail import Rail
from melt_stream.sensor import Files

CHIP = Chip(shunt_step_v=40e-6, bus_step_v=8e-3, offset_v=80e-6, gain=0.0025)
SOURCE = (
    "TI SBOS576: 0.25 % of each voltage, 80 uV over the shunt (limits, 25 degC); the shunt taken as a 1 % part; "
    "voltage and current are read one after the other, which a changing load adds to"
)
UNCONNECTED = "NC"


class Seen(NamedTuple):
    """What a channel showed."""

    volts: float
    amps: float

    @property
    def watts(self) -> float:
        """The product, W; its factors are of different moments."""
        return self.volts * self.amps


class Channel(NamedTuple):
    """One channel that is connected and on, by the keys of its files."""

    name: str
    chip: str
    """Its address, such as 1-0040, which stays; the number of its hwmon folder does not."""
    number: int
    volts: str
    amps: str
    ohm: float | None
    interval_ms: float | None
    samples: int | None

    def read(self, files: Files) -> Seen | None:
        """Return what it shows; None where one of its two files is empty or cannot be read."""
        volts, amps = integer(files, self.volts), integer(files, self.amps)
        return None if volts is None or amps is None else Seen(volts * 1e-3, amps * 1e-3)


def channels(files: Files) -> Iterator[Channel]:
    """Return the channels, by the rails' names; two of one name have chip and channel after it."""
    found = {f"{c.chip}/{c.number}": c for c in (*_hwmon(files), *_iio(files)) if c.name != UNCONNECTED}
    names = unique({place: channel.name for place, channel in found.items()})
    for place, channel in found.items():
        yield channel._replace(name=names[place])


def _hwmon(files: Files) -> Iterator[Channel]:
    for chip in dict.fromkeys(key.partition("/")[0] for key in files):
        for n in (1, 2, 3):
            volts, amps = f"{chip}/in{n}_input", f"{chip}/curr{n}_input"
            if volts in files and amps in files and integer(files, f"{chip}/in{n}_enable") != 0:
                name = text(files, f"{chip}/in{n}_label") or f"{chip}-{n}"
                ohm = files.number(f"{chip}/shunt{n}_resistor", 1e-6) or None
                interval = files.number(f"{chip}/update_interval") or None
                yield Channel(name, chip, n, volts, amps, ohm, interval, integer(files, f"{chip}/samples"))


def _iio(files: Files) -> Iterator[Channel]:
    for chip in dict.fromkeys(key.partition("/")[0] for key in files):
        for n in (0, 1, 2):
            volts, amps = f"{chip}/in_voltage{n}_input", f"{chip}/in_current{n}_input"
            if volts in files and amps in files:
                name = text(files, f"{chip}/rail_name_{n}") or f"{chip}-{n}"
                yield Channel(name, chip, n, volts, amps, None, None, None)


def rail_of(
    channel: Channel, seen: Seen, hz: float, ohm: float | None, is_board: bool, parent: str | None
) -> Rail:
    """Return a channel's rail as it is at the voltage and current that were ``seen``, read at ``hz``."""
    return Rail(
        channel.name,
        "board" if is_board else "rail",
        parent=parent,
        instrument="gauge",
        source=SOURCE,
        **averaging(channel.interval_ms, hz),
        **CHIP.accuracy(seen.volts, seen.amps, ohm),
    )


def sum_of(name: str, parts: Sequence[Rail]) -> Rail:
    """Return the rail that is the board's sum; its parts' offsets and steps are independent, their gain is not taken so."""
    longest = max(parts, key=lambda part: part.window_ns or 0.0)
    return Rail(
        name,
        "board",
        longest.kind,
        window_ns=longest.window_ns,
        gain=max(part.gain or 0.0 for part in parts) or None,
        offset=_together([part.offset for part in parts]),
        resolution=_together([part.resolution for part in parts]),
        instrument="gauge",
        source=f"the sum of {', '.join(part.name for part in parts)}; {SOURCE}",
    )


def _together(parts: Sequence[float | None]) -> float | None:
    """Independent errors in quadrature; None where one of them is unknown."""
    known = [part for part in parts if part is not None]
    return math.hypot(*known) if len(known) == len(parts) else None

"""What a PowerSensor3 says of itself: sensors, pairs of them, and the form of the sets that it sends; no I/O."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from melt_stream.errors import DeviceError
from melt_stream.stream import RESERVED

Array = np.ndarray[Any, Any]
RECORD = struct.Struct("<16s16sff?")
"""As the firmware stores a sensor: type, name of its pair, vref, sensitivity, in use."""
SENSORS = 8
VOLTS_PER_LEVEL = 3.3 / 1023
TOP = 1023
TAKEN = RESERVED | {"marks", "total"}


class Sensor(NamedTuple):
    """One converter channel: even ones measure a current, odd ones a voltage."""

    type: str
    pair: str
    vref: float
    """What it gives at 0 A or 0 V, V."""
    sensitivity: float
    """V/A or V/V; negative where it is wired the other way round."""
    in_use: bool

    @property
    def step(self) -> float:
        """What one level is, in A or V."""
        return VOLTS_PER_LEVEL / self.sensitivity

    @property
    def zero(self) -> float:
        """What level 0 is less than nothing, in A or V."""
        return self.vref / self.sensitivity

    @property
    def most(self) -> float:
        """The most that it can show, in A or V."""
        return max(-self.zero, TOP * self.step - self.zero)


@dataclass(frozen=True)
class Pair:
    """A current and a voltage that are measured together."""

    number: int
    stream: str
    """A name for its stream, made of its own."""
    name: str
    current: Sensor
    voltage: Sensor


def sensors(config: bytes) -> list[Sensor]:
    """Read the 8 records of the configuration."""
    read = (RECORD.unpack_from(config, RECORD.size * k) for k in range(SENSORS))
    return [Sensor(_text(kind), _text(pair), *numbers) for kind, pair, *numbers in read]


def pairs(told: Sequence[Sensor]) -> list[Pair]:
    """Return the pairs in use. Raises ``DeviceError`` where there is none, or one has no scale."""
    found: list[Pair] = []
    for number in range(SENSORS // 2):
        current, voltage = told[2 * number : 2 * number + 2]
        if current.in_use and voltage.in_use:
            _check(number, current, voltage)
            name = current.pair or f"pair {number}"
            found.append(Pair(number, _stream(number, name, found), name, current, voltage))
    if not found:
        raise DeviceError(
            "expected a pair whose two sensors are in use, got none; its maker's psconfig sets that: psconfig -s 0 -o 1 -s 1 -o 1"
        )
    return found


def _check(number: int, current: Sensor, voltage: Sensor) -> None:
    for what, sensor in (("current", current), ("voltage", voltage)):
        if not (math.isfinite(sensor.vref) and math.isfinite(sensor.sensitivity) and sensor.sensitivity):
            raise DeviceError(
                f"pair {number}: expected the {what} sensor's reference and sensitivity, got {sensor.vref:g} V and "
                f"{sensor.sensitivity:g}; set them with its maker's psconfig -v and -n"
            )


def _stream(number: int, name: str, others: Sequence[Pair]) -> str:
    made = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not re.match(r"[a-z]", made):
        made = f"pair_{made}" if made else f"pair_{number}"
    return f"{made}_{number}" if made in {*TAKEN, *(other.stream for other in others)} else made


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class Form:
    """Which sensors a set has, in order."""

    sent: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of a set."""
        return 2 * (1 + len(self.sent))

    def fixed(self, sets: int) -> tuple[Array, Array]:
        """The bits of so many sets that are always the same: a mask, and what they are."""
        mask, want = [0xF0, 0xC0], [0xF0, 0x40]
        for sensor in self.sent:
            mask += [0xF0, 0xC0 if sensor else 0x80]  # sensor 0 may bear a mark
            want += [0x80 | sensor << 4, 0]
        return np.tile(np.array(mask, np.uint8), sets), np.tile(np.array(want, np.uint8), sets)

    def place(self, sensor: int) -> int:
        """The byte of a set at which a sensor's word begins."""
        return 2 * (1 + self.sent.index(sensor))


ALL = Form(tuple(range(SENSORS)))


def forms(told: Sequence[Sensor]) -> list[Form]:
    """What sets may look like: all sensors since firmware 1.6, only those in use before."""
    return [ALL, Form(tuple(k for k, sensor in enumerate(told) if sensor.in_use))]

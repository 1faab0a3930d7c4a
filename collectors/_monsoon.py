"""What the Monsoon power monitor (LVPM, stock firmware) is told, and what it says of itself; no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

VOLTS = (2.01, 4.55)
"""What the output can be set to."""
STATUS_REQUEST, STOP, BEFORE_START = b"\x01\x00\x00", b"\x03\x00", b"\x01\x1b\x01"
START = b"\x02\xff\xff\xff\xff\x03\xe8"
"""For ever, with a calibration each 1000 ms."""
PASSTHROUGH = {"off": 0, "on": 1, "auto": 2}
_STATUS = struct.Struct(">BBBhhhHhhhHBBBxBbHBHHHHBbbHHBBBbbbbbbbbbBH")
_FIELDS = [
    "packet",
    "firmware",
    "protocol",
    "main_fine",
    "usb_fine",
    "aux_fine",
    "voltage1",
    "main_coarse",
    "usb_coarse",
    "aux_coarse",
    "voltage2",
    "setting",
    "temperature",
    "status",
    "leds",
    "main_fine_resistor",
    "serial_number",
    "sample_rate",
    "dac_low",
    "dac_high",
    "power_up_limit",
    "run_limit",
    "power_up_time",
    "usb_fine_resistor",
    "aux_fine_resistor",
    "initial_usb",
    "initial_aux",
    "hardware_revision",
    "temperature_limit",
    "passthrough",
    "main_coarse_resistor",
    "usb_coarse_resistor",
    "aux_coarse_resistor",
    "default1",
    "default2",
    "default3",
    "default4",
    "default5",
    "default6",
    "event_code",
    "event_data",
]

Array = np.ndarray[Any, Any]


class Status(NamedTuple):
    """What we use of the status packet, in SI units."""

    firmware: int
    protocol: int
    serial_number: int
    hardware_revision: int
    volts: float
    """The output's setting; 0 where it is off."""
    power_up_limit: float
    run_limit: float
    passthrough: str
    event_code: int
    """0: nothing happened."""
    event_data: int

    @property
    def volt_step(self) -> float:
        """Volts a count of a sample."""
        return 62.5e-6 if self.hardware_revision == 1 else 125e-6


def status(body: bytes) -> Status:
    """Read a status packet's body: 58 bytes that begin with 0x10."""
    told = dict(zip(_FIELDS, _STATUS.unpack(body), strict=True))
    names = {number: name for name, number in PASSTHROUGH.items()}
    return Status(
        firmware=told["firmware"],
        protocol=told["protocol"],
        serial_number=told["serial_number"],
        hardware_revision=told["hardware_revision"],
        volts=2.0 + told["setting"] / 100 if told["setting"] else 0.0,
        power_up_limit=8 * (1023 - told["power_up_limit"]) / 1023,
        run_limit=8 * (1023 - told["run_limit"]) / 1023,
        passthrough=names.get(told["passthrough"], str(told["passthrough"])),
        event_code=told["event_code"],
        event_data=told["event_data"],
    )


def frame(body: bytes) -> bytes:
    """Add length and checksum."""
    return bytes([len(body) + 1, *body, (len(body) + 1 + sum(body)) % 256])


def set_volts(volts: float) -> bytes:
    """Command: the output's voltage; 0 switches it off."""
    return bytes([1, 1, round((volts - 2.0) * 100) if volts else 0])


def set_limit(amps: float, *, power_up: bool) -> list[bytes]:
    """Commands: the current at which the output is switched off, while it powers up or afterwards."""
    raw = 1023 - int(amps / 8 * 1023)
    low = 0x08 if power_up else 0x0A
    return [bytes([1, low, raw & 0xFF]), bytes([1, low + 1, raw >> 8])]


def set_passthrough(mode: str) -> bytes:
    """Command: whether USB data and power pass through the box."""
    return bytes([1, 0x10, PASSTHROUGH[mode]])


@dataclass
class Decoded:
    """What one block of bytes gave: rows, and events (kind, row before which it happened, tick, amount)."""

    tick: Array
    amps: Array
    volts: Array
    events: Array
    statuses: list[Status]
    next_tick: int
    whole_before: int = 0
    """Samples that had arrived with an earlier block, and waited for what follows them."""


@dataclass
class Decoder:
    """Keeps what is carried from block to block."""

    volt_step: float = 125e-6
    _left: bytes = b""
    _state: Array = field(default_factory=lambda: np.array([0, -1, 0], np.int64))
    _calibration: Array = field(init=False)

    def __post_init__(self) -> None:
        self._calibration = np.array([0, 0, 0, 0, 0, self.volt_step], np.float64)

    def feed(self, data: bytes) -> Decoded:
        """Decode what has come; bytes that do not make a packet yet wait for the next call."""
        from melt_stream.collectors._decode_monsoon import STATUS, STATUS_LEN, decode

        waited = len(self._left)
        data = self._left + data
        raw = np.frombuffer(data, np.uint8)
        rows, calls = len(raw) // 8 + 1, len(raw) // 8 + 4
        tick, amps, volts = np.empty(rows, np.int64), np.empty(rows, np.float32), np.empty(rows, np.float32)
        events = np.empty((calls, 4), np.int64)
        used, row, event = decode(raw, self._state, self._calibration, tick, amps, volts, events)
        self._left = data[used:]
        events = events[:event]
        places = events[events[:, 0] == STATUS, 3]
        statuses = [status(data[at + 1 : at + STATUS_LEN]) for at in places]
        whole = (data[0] - 6) // 8 if waited and waited > data[0] >= 14 and data[0] != STATUS_LEN else 0
        return Decoded(tick[:row], amps[:row], volts[:row], events, statuses, int(self._state[0]), whole)

    @property
    def in_packet(self) -> int:
        """Samples in a packet."""
        return int(self._state[2])

    def shift(self, samples: int) -> None:
        """Count on from so many samples later: they were lost, unseen."""
        self._state[0] += samples


def warm_up() -> None:
    """Have the kernel compiled."""
    Decoder().feed(frame(STATUS_REQUEST))

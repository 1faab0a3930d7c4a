"""What the black Monsoon (HVPM) is told and says of itself, in control transfers; and its packets decoded. No transport.

Source: PyPI Monsoon 0.1.88, the maker's client (pmapi.py, HVPM.py, Operations.py, sampleEngine.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors._hvpm_link import Link, Refused
from melt_stream.errors import DeviceError

Array = np.ndarray[Any, Any]
VALUE, START, STOP = 0x01, 0x02, 0x03
"""bRequest: set or get a value, start, stop."""
MAIN_VOLTS, UP_LIMIT, RUN_LIMIT, PASSTHROUGH, VOLT_CHANNEL = 0x41, 0x43, 0x44, 0x10, 0x23
SERIAL, MODEL, FIRMWARE, PROTOCOL, STARTED = 0x42, 0x45, 0xC0, 0xC1, 0xC4
DAC_LOW, DAC_HIGH = 0x88, 0x89
SCALES = (0x1B, 0x1A, 0x1D, 0x1C, 0x1F, 0x1E)
"""In the order of a record: main coarse, main fine, usb, aux; mA for coarse, uA for fine."""
OFFSETS = (0x26, 0x25, 0x28, 0x27)
"""The same, counts, signed; aux has none."""
BUSY = 0xFFFF_FFFE
"""The answer to a question while it samples."""
CALIBRATE_MS = 1250
HVPM = 2
MODES = {"off": 0, "on": 1, "auto": 2}
CHANNELS = ("main", "usb", "aux")
DAC_RANGES = {"low": (0xD000, 0xF000), "high": (0xC000, 0xD000)}
"""Outside of them the maker's client sets no voltage: the output could be far from it."""
FULL_AMPS = 15.625
_RAW_0 = 0x0F00


class About(NamedTuple):
    """What the box says of itself."""

    serial_number: int
    firmware: int
    protocol: int
    power_up_limit: float
    run_limit: float
    passthrough: str
    dac_low: int
    dac_high: int
    scales: tuple[int, ...]
    offsets: tuple[int, ...]


def get(link: Link, opcode: int, *, signed: bool = False) -> int:
    """Ask for a value of 16 bits. Raises ``Refused`` while the box samples."""
    told = link.control_in(VALUE, 0, opcode, 4)
    if len(told) < 2 or int.from_bytes(told, "little") == BUSY:
        raise Refused(f"the answer to opcode {opcode:#04x} was {told.hex() or 'empty'}: it still samples")
    return int.from_bytes(told[:2], "little", signed=signed)


def put(link: Link, opcode: int, value: int) -> None:
    """Set a value of 32 bits, of which 24 are sent a second time in the request itself."""
    link.control_out(VALUE, value & 0xFFFF, opcode | (value >> 16 & 0xFF) << 8, value.to_bytes(4, "little"))


def start(link: Link) -> None:
    """Let it sample for ever."""
    link.control_out(START, CALIBRATE_MS, 0, b"\xff" * 4)


def stop(link: Link) -> None:
    """Let it sample no more."""
    link.control_out(STOP, 0, 0, b"")


def about(link: Link) -> About:
    """Ask for all that is needed. Raises ``DeviceError`` for another model."""
    if (model := get(link, MODEL)) != HVPM:
        what = "a white box that was reflashed" if model == 1 else "an unknown one"
        raise DeviceError(f"{link.name}: expected hardware model {HVPM} (HVPM), got {model}: {what}")
    names = {number: name for name, number in MODES.items()}
    mode = get(link, PASSTHROUGH) & 0xFF
    return About(
        serial_number=get(link, SERIAL),
        firmware=get(link, FIRMWARE) & 0xFF,
        protocol=get(link, PROTOCOL) & 0xFF,
        power_up_limit=_amps(get(link, UP_LIMIT)),
        run_limit=_amps(get(link, RUN_LIMIT)),
        passthrough=names.get(mode, str(mode)),
        dac_low=get(link, DAC_LOW),
        dac_high=get(link, DAC_HIGH),
        scales=tuple(get(link, opcode) for opcode in SCALES),
        offsets=tuple(get(link, opcode, signed=True) for opcode in OFFSETS),
    )


def set_volts(link: Link, volts: float) -> None:
    """Set the main output; 0 switches it off."""
    put(link, MAIN_VOLTS, round(volts * (1 << 20)))


def set_limit(link: Link, opcode: int, amps: float) -> None:
    """Set the current at which the output is switched off, while it powers up or afterwards."""
    put(link, opcode, round((0xFFFF - _RAW_0) * amps / FULL_AMPS) + _RAW_0)


def _amps(raw: int) -> float:
    return FULL_AMPS * (raw - _RAW_0) / (0xFFFF - _RAW_0)


def dac_fault(told: About) -> str:
    """Return what is wrong with the calibration of the output voltage; empty where all is well."""
    for which, (low, high) in DAC_RANGES.items():
        value = getattr(told, f"dac_{which}")
        if not low < value < high:
            return f"expected its {which} DAC calibration within {low:#x} to {high:#x}, got {value:#x}"
    return ""


@dataclass
class Decoded:
    """What one read gave: rows, and events (kind, row before which it happened, tick, amount)."""

    tick: Array
    values: Array
    """float32; columns amps of main, usb, aux, then volts of main and of the second channel."""
    events: Array
    next_tick: int


@dataclass
class Decoder:
    """Keeps what is carried from read to read."""

    scales: tuple[int, ...]
    offsets: tuple[int, ...]
    channels: Collection[str] = ("main",)
    _state: Array = field(default_factory=lambda: np.array([0, -1, 3], np.int64))
    _kept: Array = field(init=False)
    _ranges: Array = field(init=False)

    def __post_init__(self) -> None:
        from melt_stream.collectors._decode_hvpm import KEPT

        self._kept = np.zeros((2, 6, KEPT + 1), np.int64)
        amps = np.array(self.scales) * np.array([1e-3, 1e-6] * 3)
        wanted = np.repeat([name in self.channels for name in CHANNELS], 2)
        self._ranges = np.column_stack([amps, [*self.offsets, 0, 0], wanted]).astype(np.float64)

    @property
    def next_tick(self) -> int:
        """The number of the sample that comes next."""
        return int(self._state[0])

    def feed(self, data: bytes, most: int) -> Decoded:
        """Decode one read's packets, of which only the last may be short; ``most`` samples may have been lost by now."""
        from melt_stream.collectors._decode_hvpm import MOST, PACKET, decode

        packets = -(-len(data) // PACKET)
        tick, values = np.empty(packets * MOST, np.int64), np.zeros((packets * MOST, 5), np.float32)
        events = np.empty((packets * (MOST + 2), 4), np.int64)
        raw = np.frombuffer(data, np.uint8)
        rows, many = decode(raw, most, self._state, self._kept, self._ranges, tick, values, events)
        return Decoded(tick[:rows], values[:rows], events[:many], self.next_tick)


def warm_up() -> None:
    """Have the kernel compiled."""
    Decoder((1,) * 6, (0,) * 4).feed(b"\0" * 64, 0)

"""The Monsoon's bytes into columns: one pass, each packet checked, nothing taken for a sample that may be none.

A packet is LEN, LEN - 1 bytes of body, and a checksum of 8 bits, with no start mark, so that a lost byte is found
only by what follows. A packet of samples therefore counts where the checksum holds *and* the next header makes sense: junk costs
the packet before it, too, since one damaged packet in 256 has the right checksum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
kernel = njit(cache=True, nogil=True, error_model="numpy")

TICK, SEQUENCE, IN_PACKET = 0, 1, 2
"""Of the state: the next sample's number, the last packet's 4-bit number (-1: none yet), samples in a packet."""
FINE_ZERO, COARSE_ZERO, FINE_REF, COARSE_REF, HAVE, VOLT_STEP = 0, 1, 2, 3, 4, 5
"""Of the calibration: counts; HAVE is 1 for the zeros, 2 for the references, 3 for both; volts a count."""
SKIPPED, CALIBRATED, UNCALIBRATED, UNKNOWN, RESYNCED, STATUS = 1, 2, 3, 4, 5, 6
"""Kinds of events. Their amount: samples, but bytes for RESYNCED, and where it lies in the bytes for STATUS."""
STATUS_LEN = 59
FINE_A, COARSE_A = 0.0332, 2.88
"""Amperes between the zero and the reference of each range."""
PATIENCE = 2048
"""Bytes after which what may still become a packet is given up."""


@kernel
def _byte(data: Array, at: int) -> Any:
    """One byte as int64: an unsigned one beside a signed one would make numba take floats."""
    return np.int64(data[at])


@kernel
def _header(data: Array, at: int, end: int) -> int:
    """1 where a packet may begin, 0 where none can, -1 where too few bytes are there to say."""
    if at + 3 > end:
        return -1
    length, first = data[at], data[at + 1]
    if length == STATUS_LEN and first == 0x10:
        return 1
    return 1 if length >= 14 and (length - 6) % 8 == 0 and 0x20 <= first <= 0x2F and data[at + 2] < 16 else 0


@kernel
def _checked(data: Array, at: int) -> bool:
    length: int = _byte(data, at)
    total = np.uint32(0)
    for byte in data[at : at + length]:
        total += byte
    return bool((total & 0xFF) == data[at + length])


@kernel
def _find(data: Array, at: int, end: int) -> int:
    """Return where the next packet begins that is beyond doubt; -1 where none is there yet."""
    while at + 2 < end:
        if _header(data, at, end) == 1:
            after = at + _byte(data, at) + 1
            if (
                after <= end
                and _checked(data, at)
                and (data[at + 1] == 0x10 or _header(data, after, end) == 1)
            ):
                return at
        at += 1
    return -1


@kernel
def _int16(data: Array, at: int) -> int:
    value: int = _byte(data, at) << 8 | _byte(data, at + 1)
    return value - 65536 if value >= 32768 else value


@kernel
def _calibrate(data: Array, at: int, kind: int, calibration: Array) -> None:
    """Take the fine value of the first sample and the coarse value of the second."""
    offset = 0 if kind == 1 else 2
    calibration[FINE_ZERO + offset] = _int16(data, at + 5)
    calibration[COARSE_ZERO + offset] = _int16(data, at + 13)
    calibration[HAVE] = np.int64(calibration[HAVE]) | kind


@kernel
def _ready(calibration: Array) -> bool:
    """Whether both calibrations came, and differ: else there is no scale."""
    spans = (
        calibration[FINE_REF] != calibration[FINE_ZERO]
        and calibration[COARSE_REF] != calibration[COARSE_ZERO]
    )
    return bool(calibration[HAVE] == 3 and spans)


@kernel
def _samples(
    data: Array, at: int, count: int, row: int, calibration: Array, amps: Array, volts: Array
) -> None:
    fine_zero, coarse_zero = calibration[FINE_ZERO], calibration[COARSE_ZERO]
    fine = FINE_A / (calibration[FINE_REF] - fine_zero)
    coarse = COARSE_A / (calibration[COARSE_REF] - coarse_zero)
    step = calibration[VOLT_STEP]
    for i in range(count):
        place = at + 5 + 8 * i
        main = _int16(data, place)
        amps[row + i] = ((main & ~1) - coarse_zero) * coarse if main & 1 else (main - fine_zero) * fine
        volts[row + i] = ((_byte(data, place + 6) << 8 | _byte(data, place + 7)) & ~3) * step


@kernel
def _next_good(data: Array, at: int, end: int) -> int:
    """Return where the first packet is that is beyond doubt, ``at`` or later; -1 where more bytes must tell."""
    header = _header(data, at, end)
    after = at + _byte(data, at) + 1
    if header == -1 or (header == 1 and after > end):
        return -1
    if header == 1 and _checked(data, at):
        ahead = 1 if data[at + 1] == 0x10 else _header(data, after, end)
        if ahead != 0:
            return at if ahead == 1 else -1
    return int(_find(data, at + 1, end))


@kernel
def decode(
    data: Array, state: Array, calibration: Array, tick: Array, amps: Array, volts: Array, events: Array
) -> tuple[int, int, int]:
    """Decode ``data`` (uint8) as far as it is beyond doubt; return bytes used, rows written and events written.

    ``state`` (int64) and ``calibration`` (float64) are carried from call to call; ``tick`` (int64), ``amps`` (A) and ``volts``
    (V; both float32) take the rows, at least one for 8 bytes; ``events`` (int64, one for 16 bytes) takes rows of
    kind, row before which it happened, tick, amount. Numbers of packets are taken at their least: 16 more are not seen here.
    """
    at, end, row, event = 0, len(data), 0, 0
    while at < end:
        if data[at] == 0:  # a length of 0 carries nothing
            at += 1
            continue
        good = _next_good(data, at, end)
        if good == -1:
            if end - at > 2 * PATIENCE:
                events[event] = (RESYNCED, row, state[TICK], end - at - PATIENCE)
                event, at = event + 1, end - PATIENCE
            break
        length = _byte(data, good)
        after = good + length + 1
        if good > at:
            events[event] = (RESYNCED, row, state[TICK], good - at)
            event += 1
        if data[good + 1] == 0x10:
            events[event] = (STATUS, row, state[TICK], good)
            event, at = event + 1, after
            continue
        number, kind, count = _byte(data, good + 1) & 15, _byte(data, good + 2), (length - 6) // 8
        if state[SEQUENCE] >= 0:
            missing = (number - state[SEQUENCE] - 1) & 15
            if missing:
                lost = missing * state[IN_PACKET]  # of the packet before: it set both
                events[event] = (SKIPPED, row, state[TICK], lost)
                event += 1
                state[TICK] += lost
        state[SEQUENCE], state[IN_PACKET] = number, count
        if kind == 0 and _ready(calibration):
            _samples(data, good, count, row, calibration, amps, volts)
            for i in range(count):
                tick[row + i] = state[TICK] + i
            row += count
        else:
            what = UNCALIBRATED if kind == 0 else UNKNOWN
            if 1 <= kind <= 2 and count >= 2:
                _calibrate(data, good, kind, calibration)
                what = CALIBRATED
            events[event] = (what, row, state[TICK], count)
            event += 1
        state[TICK] += count
        at = after
    return at, row, event

"""The black Monsoon's packets into columns: one pass, each record one sample, whatever is lost counted.

A packet is dropped (u16, little-endian: samples lost so far because the host did not read), flags (u8), n (u8, up to 3) and n
records of 18 bytes: coarse and fine current of main, usb and aux, volts of main and of the second channel (u16, big-endian),
gain (u8), type (u8). USB guards every packet with a checksum of its own, so that a damaged one is rare and only ever a whole one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
kernel = njit(cache=True, nogil=True, error_model="numpy")

PACKET, HEAD, RECORD, MOST = 64, 4, 18, 3
TICK, DROPPED, IN_PACKET = 0, 1, 2
"""Of the state: the next sample's number, the counter of the last packet (-1: none yet), samples in a packet."""
ZERO, REFERENCE = 0, 1
SCALE, OFFSET, WANTED = 0, 1, 2
FINE_ENDS = (64_000, 64_000, 30_000)
"""Counts of the fine range of main, usb and aux from which on the coarse one counts."""
KEPT = 5
"""So many of the newest calibrations of each kind are averaged, and none counts before so many came: as the maker's client does."""
LOST, CALIBRATED, UNCALIBRATED, INVALID, DAMAGED = 1, 2, 3, 4, 5
"""Kinds of events; their amount is samples."""
MEASURED_TYPE, ZERO_TYPE, REFERENCE_TYPE = 0x00, 0x10, 0x30
VOLTS_PER_COUNT = 62.5e-6
MAIN_VOLTS, OTHER_VOLTS = 4 * VOLTS_PER_COUNT, 2 * VOLTS_PER_COUNT


@kernel
def _byte(data: Array, at: int) -> Any:
    """One byte as int64: an unsigned one beside a signed one would make numba take floats."""
    return np.int64(data[at])


@kernel
def _big(data: Array, at: int) -> int:
    value: int = _byte(data, at) << 8 | _byte(data, at + 1)
    return value


@kernel
def _note(events: Array, event: int, kind: int, row: int, tick: int, amount: int) -> int:
    """Add an event, or lengthen the last one where this goes on from it; return how many there are."""
    last = event - 1
    if (
        event
        and events[last, 0] == kind
        and events[last, 1] == row
        and events[last, 2] + events[last, 3] == tick
    ):
        events[last, 3] += amount
        return event
    events[event, 0], events[event, 1], events[event, 2], events[event, 3] = kind, row, tick, amount
    return event + 1


@kernel
def _calibrate(data: Array, at: int, kind: int, kept: Array) -> None:
    """Keep a calibration record; a count of 0 is none."""
    for channel in range(6):
        value = _big(data, at + 2 * channel)
        if value:
            kept[kind, channel, kept[kind, channel, KEPT] % KEPT] = value
            kept[kind, channel, KEPT] += 1


@kernel
def _refit(kept: Array, channels: Array, fit: Array) -> bool:
    """Make zero and slope (A a count) of each wanted channel from the calibrations; False where one has none yet."""
    for channel in range(6):
        if not channels[channel, WANTED]:
            continue
        if kept[ZERO, channel, KEPT] < KEPT or kept[REFERENCE, channel, KEPT] < KEPT:
            return False
        zero = channels[channel, OFFSET] + kept[ZERO, channel, :KEPT].mean()
        span = kept[REFERENCE, channel, :KEPT].mean() - zero
        if span == 0:
            return False
        fit[channel, 0] = zero
        fit[channel, 1] = channels[channel, SCALE] / span
    return True


@kernel
def _amps(data: Array, at: int, coarse: int, threshold: int, fit: Array) -> float:
    """The current of one channel: fine where it is not near its end, else coarse."""
    fine = _big(data, at + 2 * coarse + 2)
    place, count = coarse, _big(data, at + 2 * coarse)
    if fine < threshold:
        place, count = coarse + 1, fine
    amps: float = (count - fit[place, 0]) * fit[place, 1]
    return amps


@kernel
def decode(
    data: Array,
    most: int,
    state: Array,
    kept: Array,
    channels: Array,
    tick: Array,
    values: Array,
    events: Array,
) -> tuple[int, int]:
    """Decode the packets of one read (uint8; only the last may be short); return rows and events written.

    ``most`` samples may be missing at the most, by the host's clock: a counter that says more is damaged, and one that has gone round
    (65,536 samples) is put right by it. ``state`` (int64) and ``kept`` (int64, [2, 6, KEPT + 1]: calibrations and, last, how
    many there were) are carried from call to call; ``channels`` (float64, [6, 3]) holds SCALE (A), OFFSET (counts) and WANTED of
    each range. ``tick`` (int64) and ``values`` (float32, columns amps of main, usb, aux, volts of main, other) take a row a
    sample, ``events`` (int64, 4 a packet) rows of kind, row before which it happened, tick, amount.
    """
    fit = np.zeros((6, 2))
    ready = _refit(kept, channels, fit)
    row, event, end = 0, 0, len(data)
    for start in range(0, end, PACKET):
        size = min(PACKET, end - start)
        count = _byte(data, start + 3) if size >= HEAD else MOST + 1
        dropped = _byte(data, start) | _byte(data, start + 1) << 8 if size >= HEAD else 0
        lost = (dropped - state[DROPPED]) & 0xFFFF if state[DROPPED] >= 0 else 0
        if count > MOST or HEAD + RECORD * count > size or lost > most:
            event = _note(events, event, DAMAGED, row, state[TICK], state[IN_PACKET])
            state[TICK] += state[IN_PACKET]
            continue
        while lost + 0x10000 <= most:
            lost += 0x10000
        state[DROPPED], state[IN_PACKET] = dropped, count or state[IN_PACKET]
        if lost:
            event = _note(events, event, LOST, row, state[TICK], lost)
            state[TICK] += lost
            most = max(0, most - lost)
        for at in range(start + HEAD, start + HEAD + RECORD * count, RECORD):
            kind = data[at + 17] & 0x30
            if kind == MEASURED_TYPE and ready:
                tick[row] = state[TICK]
                for channel in range(3):
                    if channels[2 * channel, WANTED]:
                        values[row, channel] = _amps(data, at, 2 * channel, FINE_ENDS[channel], fit)
                values[row, 3] = _big(data, at + 12) * MAIN_VOLTS
                values[row, 4] = _big(data, at + 14) * OTHER_VOLTS
                row += 1
            else:
                what = UNCALIBRATED if kind == MEASURED_TYPE else INVALID
                if kind in (ZERO_TYPE, REFERENCE_TYPE):
                    _calibrate(data, at, ZERO if kind == ZERO_TYPE else REFERENCE, kept)
                    ready = _refit(kept, channels, fit)
                    what = CALIBRATED
                event = _note(events, event, what, row, state[TICK], 1)
            state[TICK] += 1
    return row, event

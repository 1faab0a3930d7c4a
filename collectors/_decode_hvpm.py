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
MAIN_COARSE, MAIN_FINE, USB_COARSE, USB_FINE, AUX_COARSE, AUX_FINE = range(6)
ZERO, REFERENCE = 0, 1
KEPT = 5
"""So many of the newest calibrations of each kind are averaged, and none counts before so many came: as the maker's client does."""
LOST, CALIBRATED, UNCALIBRATED, INVALID, DAMAGED = 1, 2, 3, 4, 5
"""Kinds of events; their amount is samples."""
MEASURED_TYPE, ZERO_TYPE, REFERENCE_TYPE = 0x00, 0x10, 0x30
VOLTS_PER_COUNT = 62.5e-6
MAIN_VOLTS, OTHER_VOLTS = 4 * VOLTS_PER_COUNT, 2 * VOLTS_PER_COUNT


@kernel
def _big(data: Array, at: int) -> int:
    value: int = np.int64(data[at]) << 8 | np.int64(data[at + 1])
    return value


@kernel
def _note(events: Array, event: int, kind: int, row: int, tick: int, amount: int) -> int:
    """Add an event, or lengthen the last one where this goes on from it; return how many there are."""
    if event and events[event - 1, 0] == kind and events[event - 1, 1] == row:
        if events[event - 1, 2] + events[event - 1, 3] == tick:
            events[event - 1, 3] += amount
            return event
    events[event, 0], events[event, 1], events[event, 2], events[event, 3] = kind, row, tick, amount
    return event + 1


@kernel
def _calibrate(data: Array, at: int, kind: int, ring: Array, counts: Array) -> None:
    """Keep a calibration record; a count of 0 is none."""
    for channel in range(6):
        value = _big(data, at + 2 * channel)
        if value:
            ring[kind, channel, counts[kind, channel] % KEPT] = value
            counts[kind, channel] += 1


@kernel
def _refit(ring: Array, counts: Array, scales: Array, offsets: Array, wanted: Array, fit: Array) -> bool:
    """Make zero and slope (A a count) of each wanted channel from the calibrations; False where one has none yet."""
    for channel in range(6):
        if not wanted[channel]:
            continue
        if counts[ZERO, channel] < KEPT or counts[REFERENCE, channel] < KEPT:
            return False
        zero = offsets[channel] + ring[ZERO, channel].mean()
        span = ring[REFERENCE, channel].mean() - zero
        if span == 0:
            return False
        fit[channel, 0] = zero
        fit[channel, 1] = scales[channel] / span
    return True


@kernel
def _amps(data: Array, at: int, coarse: int, threshold: int, fit: Array) -> float:
    """The current of one channel: fine where it is not near its end, else coarse."""
    fine = _big(data, at + 2 * coarse + 2)
    if fine < threshold:
        return (fine - fit[coarse + 1, 0]) * fit[coarse + 1, 1]
    return (_big(data, at + 2 * coarse) - fit[coarse, 0]) * fit[coarse, 1]


@kernel
def decode(
    data: Array,
    most: int,
    state: Array,
    ring: Array,
    counts: Array,
    scales: Array,
    offsets: Array,
    wanted: Array,
    thresholds: Array,
    tick: Array,
    values: Array,
    events: Array,
) -> tuple[int, int]:
    """Decode the packets of one read (uint8; only the last may be short); return rows and events written.

    ``most`` samples may be missing at the most, by the host's clock: a counter that says more is damaged, and one that has gone round
    (65,536 samples) is put right by it. ``state`` (int64), ``ring`` (int64, [2, 6, KEPT]) and ``counts`` (int64, [2, 6]) are
    carried from call to call; ``scales`` (A), ``offsets`` (counts) and ``wanted`` are the channels'; ``thresholds`` the three fine
    ranges' ends. ``tick`` (int64) and ``values`` (float32, columns amps of main, usb, aux, volts of main, other) take a row a
    sample, ``events`` (int64, 4 a packet) rows of kind, row before which it happened, tick, amount.
    """
    fit = np.zeros((6, 2))
    ready = _refit(ring, counts, scales, offsets, wanted, fit)
    row, event, end = 0, 0, len(data)
    for start in range(0, end, PACKET):
        size = min(PACKET, end - start)
        count = np.int64(data[start + 3]) if size >= HEAD else MOST + 1
        dropped = np.int64(data[start]) | np.int64(data[start + 1]) << 8 if size >= HEAD else 0
        lost = (dropped - state[DROPPED]) & 0xFFFF if state[DROPPED] >= 0 else 0
        if count > MOST or HEAD + RECORD * count > size or lost > most:
            event = _note(events, event, DAMAGED, row, state[TICK], state[IN_PACKET])
            state[TICK] += state[IN_PACKET]
            continue
        while lost + 0x10000 <= most:
            lost += 0x10000
        state[DROPPED], state[IN_PACKET] = dropped, count if count else state[IN_PACKET]
        if lost:
            event = _note(events, event, LOST, row, state[TICK], lost)
            state[TICK] += lost
            most = max(0, most - lost)
        for at in range(start + HEAD, start + HEAD + RECORD * count, RECORD):
            kind = data[at + 17] & 0x30
            if kind == MEASURED_TYPE and ready:
                tick[row] = state[TICK]
                for channel in range(3):
                    if wanted[2 * channel]:
                        values[row, channel] = _amps(data, at, 2 * channel, thresholds[channel], fit)
                values[row, 3] = _big(data, at + 12) * MAIN_VOLTS
                values[row, 4] = _big(data, at + 14) * OTHER_VOLTS
                row += 1
            else:
                what = UNCALIBRATED if kind == MEASURED_TYPE else INVALID
                if kind in (ZERO_TYPE, REFERENCE_TYPE):
                    _calibrate(data, at, ZERO if kind == ZERO_TYPE else REFERENCE, ring, counts)
                    ready = _refit(ring, counts, scales, offsets, wanted, fit)
                    what = CALIBRATED
                event = _note(events, event, what, row, state[TICK], 1)
            state[TICK] += 1
    return row, event

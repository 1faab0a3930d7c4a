"""PowerSensor3: sets of two-byte words to columns. Hot loops, and nothing else; numpy arrays in, numpy arrays out.

A word is 1iii hhhh, 0mll llll: sensor iii, level hhhhllllll of 0 to 1023. A set is a stamp (iii = 7, m = 1: the low 10 bits of
a counter of microseconds) and a word for each sensor in order; only sensor 0 may have m, the mark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

kernel = njit(cache=True, nogil=True, error_model="numpy")
MODULUS = 1024


@kernel
def _is_set(data: Array, at: int, mask: Array, want: Array) -> bool:  # pragma: no cover
    """Whether all fixed bits of a set are as they should be: some 50, so none is found by chance in junk."""
    wrong = np.uint8(0)
    for j in range(len(mask)):
        wrong |= (data[at + j] & mask[j]) ^ want[j]
    return bool(wrong == 0)


@kernel
def _level(data: Array, at: int) -> int:  # pragma: no cover
    return int((np.int64(data[at]) & 15) << 6 | (np.int64(data[at + 1]) & 63))


@kernel
def decode(  # noqa: PLR0917 - a kernel takes no keywords
    data: Array, mask: Array, want: Array, places: Array, gain: Array, zero: Array, period: float, jitter: float,
    stamp: Array, marked: Array, values: Array,
) -> tuple[int, int, int, int]:  # pragma: no cover  # fmt: skip
    """Decode whole sets; return bytes used, rows written, bytes thrown away, and sets left out.

    ``data`` (uint8); ``mask`` and ``want`` (uint8, the bytes of a set): its fixed bits; ``places`` (byte in a set),
    ``gain`` and ``zero`` (float64): of each column, in its unit. ``stamp`` (int64), ``marked`` (bool), ``values`` (float32, a
    row a column) take a row a set. The last set always waits for what follows it: where bytes were lost from within
    one set to the same place in a later one, two halves look like a whole, and only the step of the counter to the
    next tells. So a set that is followed at once, but not one ``period`` (within ``jitter``; 0: unknown) later, is left out.
    """
    size, end = len(mask), len(data)
    at, row, thrown, left_out = 0, 0, 0, 0
    good = at + size <= end and _is_set(data, at, mask, want)
    while at + 2 * size <= end:
        if not good:
            at += 1
            thrown += 1
            good = _is_set(data, at, mask, want)
            continue
        good = _is_set(data, at + size, mask, want)
        now = _level(data, at)
        if good and period > 0:
            step = (_level(data, at + size) - now) % MODULUS
            if abs(step - period) > jitter:
                left_out += 1
                at += size
                continue
        stamp[row] = now
        marked[row] = (data[at + 3] & 64) != 0
        for k in range(len(places)):
            values[k, row] = _level(data, at + places[k]) * gain[k] - zero[k]
        row += 1
        at += size
    return at, row, thrown, left_out

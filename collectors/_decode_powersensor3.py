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
RUN = 64
"""Sets that are looked at together: their bytes against a mask as long as all of them, which runs on vectors, and then column
by column. Set by set took twice as long."""


@kernel
def _is_set(data: Array, at: int, size: int, mask: Array, want: Array) -> bool:  # pragma: no cover
    """Whether the fixed bits of so many bytes are as they should be: some 50 a set, so none is found by chance in junk."""
    wrong = np.uint8(0)
    for j in range(size):
        wrong |= (data[at + j] & mask[j]) ^ want[j]
    return bool(wrong == 0)


@kernel
def _level(data: Array, at: int) -> int:  # pragma: no cover
    return int((np.int64(data[at]) & 15) << 6 | (np.int64(data[at + 1]) & 63))


@kernel
def _follows(data: Array, at: int, size: int, period: float, jitter: float) -> bool:  # pragma: no cover
    """Whether the set after this one comes one period later, or nobody knows what that is."""
    step = (_level(data, at + size) - _level(data, at)) % MODULUS
    return bool(period <= 0 or abs(step - period) <= jitter)


@kernel
def _write(  # noqa: PLR0917 - a kernel takes no keywords
    data: Array, at: int, size: int, count: int, places: Array, gain: Array, zero: Array,
    stamp: Array, marked: Array, values: Array, row: int,
) -> None:  # pragma: no cover  # fmt: skip
    for i in range(count):
        stamp[row + i] = _level(data, at + i * size)
        marked[row + i] = (data[at + i * size + 3] & 64) != 0
    for k in range(len(places)):
        first, by, less = at + places[k], gain[k], zero[k]
        for i in range(count):
            values[k, row + i] = _level(data, first + i * size) * by - less


@kernel
def _run(
    data: Array, at: int, size: int, mask: Array, want: Array, period: float, jitter: float
) -> bool:  # pragma: no cover
    """Whether ``RUN`` sets begin here that all follow one another, and one more that follows them."""
    if at + (RUN + 1) * size > len(data) or not _is_set(data, at, (RUN + 1) * size, mask, want):
        return False
    for i in range(RUN):  # noqa: SIM110 - compiled, a generator is slower
        if not _follows(data, at + i * size, size, period, jitter):
            return False
    return True


@kernel
def decode(  # noqa: PLR0917 - a kernel takes no keywords
    data: Array, size: int, mask: Array, want: Array, places: Array, gain: Array, zero: Array, period: float,
    jitter: float, stamp: Array, marked: Array, values: Array,
) -> tuple[int, int, int, int]:  # pragma: no cover  # fmt: skip
    """Decode whole sets; return bytes used, rows written, bytes thrown away, and sets left out.

    ``data`` (uint8); ``size``: bytes of a set; ``mask`` and ``want`` (uint8, as long as ``RUN`` + 1 sets): the bits that
    are fixed; ``places`` (byte in a set), ``gain`` and ``zero`` (float64): of each column, in its unit. ``stamp`` (int64),
    ``marked`` (bool), ``values`` (float32, a row a column) take a row a set. The last set always waits for what follows it:
    where bytes were lost from within one set to the same place in a later one, two halves look like a whole, and only
    the step of the counter to the next tells. So a set that is followed at once, but not one ``period`` (within
    ``jitter``; 0: unknown) later, is left out.
    """
    end, at, row, thrown, left_out = len(data), 0, 0, 0, 0
    while at + 2 * size <= end:
        if _run(data, at, size, mask, want, period, jitter):
            _write(data, at, size, RUN, places, gain, zero, stamp, marked, values, row)
            row += RUN
            at += RUN * size
        elif not _is_set(data, at, size, mask, want):
            at += 1
            thrown += 1
        else:
            if _is_set(data, at + size, size, mask, want) and not _follows(data, at, size, period, jitter):
                left_out += 1
            else:
                _write(data, at, size, 1, places, gain, zero, stamp, marked, values, row)
                row += 1
            at += size
    return at, row, thrown, left_out

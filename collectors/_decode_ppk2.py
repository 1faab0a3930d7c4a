"""Nordic PPK2: sample words to columns. Hot loops, and nothing else; numpy arrays in, numpy arrays out.

A sample is a little-endian u32: bits 0-13 ADC, 14-16 range, 17 unused, 18-23 counter (mod 64), 24-31 inputs D0-D7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]

kernel = njit(cache=True, nogil=True, error_model="numpy")
CODES = 1 << 17
"""ADC and range lie side by side: their 17 bits are the index of a table of amperes."""
BLOCK = 2048
"""Words checked at once."""
NOWHERE = -1


@kernel
def following(words: Array, counter: int) -> int:  # pragma: no cover
    """Return how many words at the start have the counters ``counter``, ``counter`` + 1, ...

    Block by block, since a loop that may end at any word does not run on vectors.
    """
    for start in range(0, len(words), BLOCK):
        stop = min(start + BLOCK, len(words))
        wrong = np.uint32(0)
        base = np.uint32(counter - start)
        for i in range(start, stop):
            wrong |= ((words[i] >> np.uint32(18)) ^ (base + np.uint32(i))) & np.uint32(63)
        if wrong:
            for i in range(start, stop):
                if ((words[i] >> np.uint32(18)) ^ (base + np.uint32(i))) & np.uint32(63):
                    return i
    return len(words)


@kernel
def find_run(data: Array, start: int, step: int, need: int) -> int:  # pragma: no cover
    """Return the first byte position from ``start``, by ``step``, at which ``need`` words are samples that follow
    one another: their counters go on, bit 17 is 0 and the range exists; ``NOWHERE`` where there is none.
    """
    for begin in range(start, len(data) - 4 * need + 1, step):
        last = np.int64(NOWHERE)
        for i in range(need):
            at = begin + 4 * i
            high, top = np.int64(data[at + 1]), np.int64(data[at + 2])
            counter = top >> 2
            chosen = (high >> 6) | ((top & 1) << 2)
            if (last >= 0 and counter != (last + 1) & 63) or top & 2 or chosen > 4:
                break
            last = counter
        else:
            return begin
    return NOWHERE


@kernel
def convert(words: Array, table: Array, amps: Array, ranges: Array) -> None:  # pragma: no cover
    """Fill ``amps`` (float32) from ``table``, the amperes of all ``CODES``, and ``ranges`` (uint8).

    Looking amperes up in 512 kB takes less time than computing them, with five modifiers to gather.
    """
    for i in range(len(words)):
        amps[i] = table[words[i] & np.uint32(0x1FFFF)]
    for i in range(len(words)):
        ranges[i] = (words[i] >> np.uint32(14)) & np.uint32(7)


@kernel
def edges(words: Array, before: int, at: Array, pin: Array, level: Array) -> int:  # pragma: no cover
    """Write where (index), which (0..7) and to what D0-D7 change, from ``before`` on; return how many were found.

    Stops where the arrays are full: the count is then more than their length.
    """
    count, last = 0, np.uint32(before)
    for i in range(len(words)):
        now = words[i] >> np.uint32(24)
        changed = now ^ last
        if changed:
            for k in range(8):
                if (changed >> np.uint32(k)) & np.uint32(1):
                    if count < len(at):
                        at[count], pin[count] = i, k
                        level[count] = bool((now >> np.uint32(k)) & np.uint32(1))
                    count += 1
            last = now
    return count


@kernel
def smooth(amps: Array, ranges: Array, state: Array) -> None:  # pragma: no cover
    """Apply the official app's spike filter in place; ``state`` (float64, 5) goes from one block to the next.

    Two exponential averages follow the current, alpha 0.18 and 0.06. A change of range and the two samples after it
    show the average instead (the slower one in range 4, where the first two samples do not move it).
    ``state``: both averages (NaN at first), last range (-1), samples left to replace, samples in this range.
    """
    for i in range(len(amps)):
        value, chosen = float(amps[i]), float(ranges[i])
        fast, slow = state[0], state[1]
        state[0] = value if np.isnan(fast) else 0.18 * value + 0.82 * fast
        state[1] = value if np.isnan(slow) else 0.06 * value + 0.94 * slow
        if state[2] < 0:
            state[2] = chosen
        if state[2] != chosen or state[3] > 0:
            if state[2] != chosen:
                state[3], state[4] = 3.0, 0.0
            else:
                state[4] += 1
            if chosen == 4 and state[4] < 2:
                state[0], state[1] = fast, slow
            amps[i] = state[1] if chosen == 4 else state[0]
            state[3] -= 1
        state[2] = chosen

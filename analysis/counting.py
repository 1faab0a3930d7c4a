"""Counters: what they counted from one change to the next, through wraps and resets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WILD = 10.0
"""A counter that fell has wrapped if that means no more than so many times the most power seen; else it was reset."""


def increments(amounts: Array, lengths: Array, modulus: float | None, *, drains: bool) -> Array:
    """Return changes of a counter as consumption (float64): counting down is turned round, wraps undone, resets NaN.

    ``amounts`` are differences in the column's own type, ``lengths`` the times they took, ``modulus`` the count at
    which it wraps to 0. One that ``drains`` (a battery's charge) and has no modulus may go either way.
    """
    forward = 1 if np.sum(amounts > 0) >= np.sum(amounts < 0) else -1
    steps = amounts * forward
    joined = steps.astype(np.float64)
    back = steps < 0
    if not back.any() or (drains and not modulus):
        return joined
    joined[back] = np.nan
    if modulus:
        whole = int(modulus) if steps.dtype.kind == "i" and float(modulus).is_integer() else modulus
        wrapped = (steps[back] + whole).astype(np.float64)
        speed = joined[~back] / lengths[~back]
        most = WILD * float(np.max(speed)) if len(speed) else math.inf
        fits = (wrapped >= 0) & (wrapped <= 0.5 * modulus) & (wrapped / lengths[back] <= most)
        joined[back] = np.where(fits, wrapped, np.nan)
    return joined

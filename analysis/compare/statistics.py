"""The difference of two lists of values, with its interval and p-value.

Values that are all positive are compared by the mean of their logarithms (their ratio is what is asked, and a gain error common
to both sides leaves it alone), others by their mean. Pairs: Student's t on the pairs' differences; without pairs: Welch's t
(Biometrika 34 (1947) 28). A measurement's standard uncertainty u joins the standard error in quadrature, and the interval's degrees
of freedom follow Welch and Satterthwaite (JCGM 100:2008, G.4), that of the measurement being infinite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """Of side B to side A."""

    a: float
    """Typical value: the geometric mean where all are positive, else the mean."""
    b: float
    a_u: float | None
    """Standard error of ``a``, in its unit; None for a single value."""
    b_u: float | None
    relative: bool
    """True: ``change`` and its bounds are B / A - 1; else B - A."""
    change: float
    low: float | None
    high: float | None
    """95 % interval of ``change``; None where a single value says nothing of its scatter."""
    p: float | None
    """Of no difference, by scatter alone."""
    pairs: int
    """How many pairs; 0: the values were not paired."""
    counts: tuple[int, int]
    """How many values of either side."""


def difference(
    a: Sequence[float], b: Sequence[float], *, paired: bool, u: float | None = 0.0, repeated: bool = True
) -> Difference:
    """Compare values, those of one place being a pair where ``paired``.

    ``u`` is the standard uncertainty that measuring leaves in the difference (relative where it is relative); None: unknown, and so is
    the interval. Without ``repeated`` there is no scatter to speak of, and the interval is that of measuring alone.
    """
    relative = min(*a, *b) > 0
    x, y = (np.log(v) if relative else np.asarray(v, np.float64) for v in (a, b))
    shift = float(np.mean(y) - np.mean(x))
    error, dof = _error(x, y, paired=paired)
    p = _p(shift, error, dof) if repeated else None
    low, high = _interval(shift, error if repeated else 0.0, dof, u)
    back = _expm1 if relative else float
    center = math.exp if relative else float
    return Difference(
        a=center(float(np.mean(x))), b=center(float(np.mean(y))),
        a_u=_own(x, relative), b_u=_own(y, relative),
        relative=relative, change=back(shift), low=None if low is None else back(low), high=None if high is None else back(high),
        p=p, pairs=len(a) if paired else 0, counts=(len(a), len(b)),
    )  # fmt: skip


def typical(values: Sequence[float], u: float | None) -> tuple[float, float | None, float | None]:
    """Return the typical value and its 95 % interval: scatter, where there are several, and measuring's relative ``u``."""
    relative = min(values) > 0
    x = np.log(values) if relative else np.asarray(values, np.float64)
    middle = float(np.mean(x))
    error = float(np.std(x, ddof=1) / math.sqrt(len(x))) if len(x) > 1 else 0.0
    size = u if relative or u is None else u * abs(middle)
    low, high = _interval(middle, error, len(x) - 1, size)
    back = (lambda value: 1 + _expm1(value)) if relative else float
    return back(middle), None if low is None else back(low), None if high is None else back(high)


def _expm1(value: float) -> float:
    """exp(value) - 1; infinite where two values say so little that the interval has no end."""
    with np.errstate(over="ignore"):
        return float(np.expm1(value))


def _error(x: Array, y: Array, *, paired: bool) -> tuple[float | None, float]:
    """Standard error of the difference of the means, and its degrees of freedom; None where scatter is not known."""
    if paired:
        return (float(np.std(y - x, ddof=1) / math.sqrt(len(x))), len(x) - 1) if len(x) > 1 else (None, 0.0)
    if min(len(x), len(y)) < 2:
        return None, 0.0
    parts = [float(np.var(v, ddof=1)) / len(v) for v in (x, y)]
    total = sum(parts)
    weight = sum(part**2 / (len(v) - 1) for part, v in zip(parts, (x, y), strict=True))
    return math.sqrt(total), total**2 / weight if weight else float(len(x) + len(y) - 2)


def _p(shift: float, error: float | None, dof: float) -> float | None:
    if error is None:
        return None
    if error == 0:
        return 1.0 if shift == 0 else 0.0
    return float(2 * stats.t.sf(abs(shift) / error, dof))


def _interval(
    shift: float, error: float | None, dof: float, u: float | None
) -> tuple[float | None, float | None]:
    if error is None or u is None:
        return None, None
    total = math.hypot(error, u)
    effective = dof * (total / error) ** 4 if error else math.inf
    reach = total * float(stats.t.ppf((1 + CONFIDENCE) / 2, effective))
    return shift - reach, shift + reach


def _own(values: Array, relative: bool) -> float | None:
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    return error * math.exp(float(np.mean(values))) if relative else error

"""How others place a device's clock: the best round trip alone, least squares, an NTP-style filter.

Each gets the round trips of one run and answers for device times: host time, and the bound that its rules state. As
a good user of each would: NTP's filter and least squares correct the drift, and NTP's bound is RFC 5905's root
distance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Answer = tuple[Array, Array]
"""Host times, ns, and half the width of their bound."""
PHI = 15e-6
"""RFC 5905: how fast a disciplined clock's error may grow."""
STAGES = 8
"""RFC 5905: round trips in the clock filter's register."""


def best_round_trip(tick: Array, sent: Array, back: Array, at: Array) -> Answer:
    """Cristian (1989): the shortest round trip's middle, good to half of it; nothing of drift."""
    k = int(np.argmin(back - sent))
    return at - tick[k] + (sent[k] + back[k]) / 2, np.full(len(at), (back[k] - sent[k]) / 2)


def least_squares(tick: Array, sent: Array, back: Array, at: Array) -> Answer:
    """A line through all middles, and the 95 % interval for a new one that its residuals give (1.96 s)."""
    x, y = (tick - tick[0]).astype(float), (sent + back) / 2 - tick
    slope, start = _line(x, y)
    spread = float(np.sqrt(np.sum((y - start - slope * x) ** 2) / max(len(x) - 2, 1)))
    return at + start + slope * (at - tick[0]), np.full(len(at), 1.96 * spread)


def clock_filter(tick: Array, sent: Array, back: Array, at: Array) -> Answer:
    """NTP's filter: of each eight round trips the shortest, a line through those; bound by the root distance.

    That is half the delay of the nearest one kept, and PHI times how long ago that was (RFC 5905, 10 and 11.1).
    """
    delay = back - sent
    whole = [np.arange(k, min(k + STAGES, len(tick))) for k in range(0, len(tick), STAGES)]
    kept = np.array([group[np.argmin(delay[group])] for group in whole])
    x, y = (tick[kept] - tick[0]).astype(float), ((sent + back) / 2 - tick)[kept]
    slope, start = _line(x, y)
    age = np.abs(at[:, None] - tick[kept][None, :])
    nearest = np.argmin(age, axis=1)
    bound = delay[kept][nearest] / 2 + PHI * age[np.arange(len(at)), nearest]
    return at + start + slope * (at - tick[0]), bound


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    if len(x) < 2 or x[-1] == x[0]:
        return 0.0, float(np.mean(y))
    middle = float(np.mean(x))
    slope = float(np.sum((x - middle) * (y - np.mean(y))) / np.sum((x - middle) ** 2))
    return slope, float(np.mean(y)) - slope * middle


TWO_WAY: dict[str, Callable[[Array, Array, Array, Array], Answer]] = {
    "min-RTT alone": best_round_trip,
    "least squares": least_squares,
    "NTP-style filter": clock_filter,
}


def arrivals_line(tick: Array, after: Array) -> float:
    """The drift, ppm, that least squares finds in arrivals."""
    return _line(tick.astype(float), (after - tick).astype(float))[0] * 1e6

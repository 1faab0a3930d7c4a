"""When requests are sent that wait for nobody: at a fixed rate, or at random moments of a given rate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

Arrival = Literal["fixed", "poisson"]


def moments(arrival: Arrival, rate: float, seed: int) -> Iterator[float]:
    """Yield the seconds from the start at which each request is sent, without end; the first is sent at once.

    ``fixed``: ``1 / rate`` apart. ``poisson``: independent exponential gaps of that mean, the same for the same ``seed``
    (numpy's PCG64), so that what arrives in an interval is Poisson distributed.
    """
    if arrival == "fixed":
        yield from (number / rate for number in itertools.count())
    random, at = np.random.default_rng(seed), 0.0
    while True:
        yield at
        at += float(random.exponential(1.0 / rate))

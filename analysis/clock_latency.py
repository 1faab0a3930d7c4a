"""The drift that commands and answers tell, each with a latency of its own: an estimate beside the bound.

A command comes before what it starts, an answer after what it ends. Their limits alone leave a clock's rate as
uncertain as the latencies are long. Where those only scatter about constants, one for each kind, far less is left.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array = np.ndarray[Any, Any]
FEW = 4
"""Readings of a kind from which on it takes part."""
ENDS = (("cause", "not_before"), ("arrival", "not_after"))


def latency_drift(readings: pa.Table) -> tuple[float, float] | None:
    """Return the drift (relative) of a clock in one epoch, and half the width of its 95 % interval; None where there
    are too few causes or arrivals.

    Least squares with one slope and an intercept for each kind (analysis of covariance), Student's t with n - 3
    degrees of freedom. It takes latencies of a kind to be independent and without a trend, which no bound rests on.
    """
    x, y = (np.zeros(0) for _ in range(2))
    for kind, end in ENDS:
        mine = readings.filter(pc.and_(pc.equal(readings["kind"], kind), pc.is_valid(readings[end])))
        if len(mine) < FEW:
            return None
        tick, host = mine["count"].to_numpy(), mine[end].to_numpy()
        at = (tick - tick[0]).astype(np.float64) * float(mine["tick_ns"][0].as_py())
        late = (host - host[0]).astype(np.float64) - at
        x, y = np.concatenate([x, at - np.mean(at)]), np.concatenate([y, late - np.mean(late)])
    square, free = float(x @ x), len(x) - 3
    if not square:
        return None
    slope = float(x @ y) / square
    spread = float(np.sqrt(np.sum((y - slope * x) ** 2) / free / square))
    return slope, student(free) * spread


def student(free: int, p: float = 0.975) -> float:
    """Quantile of Student's t, to 0.2 % from 5 degrees of freedom on (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / free**k for k, term in enumerate(terms, 1)))

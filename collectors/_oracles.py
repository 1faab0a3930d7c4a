"""Official results beside our own: the stream that importers fill and ``derive`` completes with ``ours``."""

from __future__ import annotations

import math
from typing import Any

from melt_stream.stream import Stream

ORACLES = Stream(
    "oracles", role="oracles", request=int, quantity=str, unit=str, reported=float, recomputed=float
)
"""``reported``: what the result file says. ``recomputed``: the result's own rule, applied to the recording."""


def oracle(
    request: int | None, quantity: str, unit: str, reported: float | None, recomputed: float | None
) -> dict[str, Any]:
    """Return a row of :data:`ORACLES`; what is unknown or not finite is null, never zero."""
    row = {
        "request": request,
        "quantity": quantity,
        "unit": unit,
        "reported": _finite(reported),
        "recomputed": _finite(recomputed),
    }
    return {"tick": 0} | row


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""Logic signals whose samples are bits, eight to a byte, the first one lowest: where they change. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def changes(bits: bytes | Array, count: int, before: bool | None) -> tuple[Array, Array]:
    """Return at which of ``count`` samples (at least one) a signal changes, and to what.

    Its first sample is a change where nothing is known ``before``.
    """
    levels = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little", count=count).astype(bool)
    first = not levels[0] if before is None else before
    at = np.flatnonzero(np.diff(levels, prepend=first))
    return at, levels[at]

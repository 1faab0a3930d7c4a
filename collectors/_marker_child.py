"""The load of a marker, in processes of its own: ``python -m ..._marker_child CORES EDGE EDGE ...``.

Edges are ns since the start: on, off, on, ... Busy is a loop that only looks at the clock. When all is over it prints
when each edge was carried out: the earliest of all cores for on, the latest for off, in ns of the host's clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from melt_stream.clock import monotonic

LEAD_NS = 300_000_000
"""From our start to the first edge: processes start, and what that cost is over."""
POLITE = 10
"""Niceness: a recorder that wants the core gets it."""


def main(arguments: Sequence[str]) -> None:
    """Play, then tell the edges."""
    cores, *edges = map(int, arguments)
    start = monotonic() + LEAD_NS
    plan = [start + edge for edge in edges]
    with ProcessPoolExecutor(cores, initializer=os.nice, initargs=(POLITE,)) as pool:
        played = list(pool.map(play, [plan] * cores))
    carried_out = [(max if k % 2 else min)(stamps) for k, stamps in enumerate(zip(*played, strict=True))]
    sys.stdout.write(" ".join(map(str, carried_out)))


def play(plan: Sequence[int]) -> list[int]:
    """Sleep to the first time, be busy to the second, and so on; return when each had come."""
    stamps = []
    for k, at in enumerate(plan):
        if k % 2:
            while monotonic() < at:
                pass
        else:
            time.sleep(max(at - monotonic(), 0) * 1e-9)
        stamps.append(monotonic())
    return stamps


if __name__ == "__main__":
    main(sys.argv[1:])

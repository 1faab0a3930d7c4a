"""Operators: what a runtime spent in each node of its graph. For shares, beside runs that measure energy: observing slows."""

from __future__ import annotations

import pyarrow as pa

from melt_stream.stream import Column, Stream
from melt_stream.units import NS

OPS = Stream(
    "ops", role="ops", graph=int, node=int, phase=str, function=str, op=str, name=str, module=str, layer=int, shapes=str,
    backend=str, count=int, duration_ns=Column(NS, pa.int64()), cpu_ns=Column(NS, pa.int64()),
)  # fmt: skip
"""One row a node of each graph that was computed; null is what the log does not tell.

``graph`` and ``node`` count from 0, ``phase`` is ``warmup``, ``prefill``, ``decode`` or the runtime's own word, ``count`` how many calls
the row stands for, ``duration_ns`` the wall time of them all, ``cpu_ns`` that of all threads. SQL sees them as ``ops`` and ``op_shares``.
"""

"""Rows of ``ops``, put together: a graph, or a report, at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from melt_stream.collectors._oracles import ORACLES
from melt_stream.ops import OPS
from melt_stream.outlet import Outlet


@dataclass(frozen=True, slots=True)
class Op:
    """A node of a graph, or a call of a report."""

    node: int
    op: str
    shapes: str
    duration_ns: int
    name: str | None = None
    module: str | None = None
    layer: int | None = None
    backend: str | None = None
    count: int = 1
    cpu_ns: int | None = None


@dataclass
class Profile:
    """Where graphs go. No log has times: a node's is what those before it took."""

    out: Outlet
    graphs: int = 0
    nodes: int = 0
    _at: int = 0

    def add(self, ops: Sequence[Op], phase: str | None, function: str | None = None) -> int:
        """Write a graph down; return its number."""
        took = np.array([op.duration_ns for op in ops], np.int64)
        ends = self._at + np.cumsum(took)
        columns: dict[str, Any] = {f.name: [getattr(op, f.name) for op in ops] for f in fields(Op)}
        same = {"graph": self.graphs, "phase": phase, "function": function}
        columns |= {name: [value] * len(ops) for name, value in same.items()}
        self.out.rows(OPS, tick=ends - took, **columns)
        self._at = int(ends[-1]) if len(ops) else self._at
        self.graphs, self.nodes = self.graphs + 1, self.nodes + len(ops)
        return self.graphs - 1

    def lost(self, reason: str, lost: int | None) -> None:
        """Say that the graph that was added last lacks nodes."""
        self.out.gap(OPS, self._at, self._at, reason, lost=lost)

    def check(self, quantity: str, unit: str, reported: float, recomputed: float) -> None:
        """Put a sum that the log prints beside the one of its nodes."""
        self.out.row(
            ORACLES, tick=self._at, quantity=quantity, unit=unit, reported=reported, recomputed=recomputed
        )

    def end(self) -> None:
        """Tell how much there was."""
        self.out.fact("graphs", self.graphs)
        self.out.fact("nodes", self.nodes)
        self.out.ready()

"""Requests and named spans -> the partition of a device's time (DESIGN section 5).

All edges cut the run into elementary intervals. Each goes to the phases of the first of these classes that is there:

0. ``load``, ``prefill``, ``decode``, and a warm-up request: the device computes; equal shares
1. ``window``: a request whose inside is not known
2. ``baseline``, ``warmup``, ``tail``, ``marker``, ``other``: what somebody named
3. ``queue``: a request that waits; it gets nothing while the device does anything else
4. ``idle``: the rest

Shares within a class are equal, and together with idle they are the whole run: nothing is counted twice or lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melt_stream.analysis.clocks import Key
from melt_stream.analysis.requests import HOST_KEY, Named, Request, Span

Array = np.ndarray[Any, Any]
CLASSES = {"load": 0, "prefill": 0, "decode": 0, "window": 1, "queue": 3, "idle": 4, "request": 9}
"""Anything else is of class 2; a whole request has no share of its own, its phases have."""
IDLE = 4


@dataclass
class Phase(Span):
    """One row of the table ``phases``."""

    phase: str = "other"
    name: str | None = None
    request: int | None = None
    tokens: int | None = None
    partial: bool = False
    device: str | None = None

    @property
    def rank(self) -> int:
        """Its class."""
        if self.phase == "warmup" and self.request is not None:
            return 0
        return CLASSES.get(self.phase, 2)


def of_request(request: Request, stop: int) -> list[Phase]:
    """Return the phases of one request; ``stop`` is the run's end, for what never ended."""
    found = [_phase(request, "window", span) for span in request.windows]
    if request.tokens is not None and request.tokens.placed:
        found += _generation(request)
    elif request.slot is not None:
        end = max(stop if request.end is None else request.end, request.slot)
        found += [
            *_queue(request, request.slot),
            _phase(request, "prefill", Span(request.slot, end, request.slot_key)),
        ]
        found[-1].partial = True
    elif request.sent is not None and not found:
        found.append(
            _phase(request, "window", Span(request.sent, stop if request.end is None else request.end))
        )
    if request.warmup and found:
        found = [_whole(request, found)]
    return [p for p in found if p.stop > p.start]


def _generation(request: Request) -> list[Phase]:
    tokens = request.tokens
    assert tokens is not None
    first, last = int(tokens.stop[0]), int(tokens.stop[-1])
    found: list[Phase] = []
    if request.slot is not None:
        slot = min(request.slot, first)
        found += [
            *_queue(request, slot),
            _phase(request, "prefill", Span(slot, first, request.slot_key, tokens.key)),
        ]
    elif request.sent is not None:
        found.append(_phase(request, "prefill", Span(min(request.sent, first), first, HOST_KEY, tokens.key)))
    if found:
        found[-1].tokens = request.processed
    found.append(_phase(request, "decode", Span(first, last, tokens.key, tokens.key)))
    found[-1].tokens = tokens.total - int(tokens.count[0])
    return found


def _queue(request: Request, slot: int) -> list[Phase]:
    if request.sent is None or request.sent >= slot:
        return []
    return [_phase(request, "queue", Span(request.sent, slot, HOST_KEY, request.slot_key))]


def _whole(request: Request, parts: list[Phase]) -> Phase:
    start, stop = min(parts, key=lambda p: p.start), max(parts, key=lambda p: p.stop)
    return _phase(request, "warmup", Span(start.start, stop.stop, start.start_key, stop.stop_key))


def _phase(request: Request, phase: str, span: Span) -> Phase:
    return Phase(
        span.start, span.stop, span.start_key, span.stop_key, phase, request.name, request.number,
        partial=request.partial, device=request.device,
    )  # fmt: skip


def of_name(found: Named) -> Phase:
    """Return a load or a phase that somebody named as a row."""
    return Phase(
        found.start, found.stop, found.start_key, found.stop_key, found.phase, found.name, None, None, found.partial,
        found.device,
    )  # fmt: skip


@dataclass
class Timeline:
    """A device's run, cut in elementary intervals."""

    edges: Array
    """ns since the run's start, sorted, unique."""
    weights: list[Array]
    """``weights[c][k]`` is the share that each phase of class c has of interval k."""
    held: list[Array] = field(default_factory=list)
    """Phases of each class that hold each interval."""

    def index(self, t: Array | Sequence[int]) -> Array:
        """Return the edges' numbers of these times."""
        return np.searchsorted(self.edges, np.asarray(t, np.int64))

    def idle(self, device: str) -> list[Phase]:
        """Return what nothing else covers, one phase a piece."""
        free = np.concatenate([[False], self.weights[IDLE] > 0, [False]])
        start, stop = np.flatnonzero(free[1:] & ~free[:-1]), np.flatnonzero(free[:-1] & ~free[1:])
        return [
            Phase(int(self.edges[a]), int(self.edges[b]), phase="idle", device=device)
            for a, b in zip(start, stop, strict=True)
        ]


def clip(phases: Iterable[Phase], stop: int) -> list[Phase]:
    """Cut phases to the run, which starts at 0; drop what lies outside it."""
    kept = []
    for phase in phases:
        phase.partial |= phase.start < 0 or phase.stop > stop
        phase.start, phase.stop = max(phase.start, 0), min(phase.stop, stop)
        if phase.stop > phase.start:
            kept.append(phase)
    return kept


def timeline(phases: Sequence[Phase], further: Array, stop: int) -> Timeline:
    """Cut the run from 0 to ``stop`` at the phases' edges and at ``further`` ones, and share it out."""
    ends = np.array([(p.start, p.stop) for p in phases], np.int64).reshape(-1)
    edges = np.unique(np.concatenate([[0, stop], ends, np.clip(further, 0, stop)])).astype(np.int64)
    free = np.ones(max(len(edges) - 1, 0))
    weights, held = [], []
    for rank in range(IDLE):
        mine = [p for p in phases if p.rank == rank]
        count = np.zeros(len(edges))
        np.add.at(count, np.searchsorted(edges, np.array([p.start for p in mine], np.int64)), 1)
        np.add.at(count, np.searchsorted(edges, np.array([p.stop for p in mine], np.int64)), -1)
        active = np.cumsum(count)[: len(free)]
        weights.append(np.where(active > 0, free / np.maximum(active, 1), 0.0))
        held.append(active)
        free = np.where(active > 0, 0.0, free)
    return Timeline(edges, [*weights, free], [*held, free])


@dataclass
class Rows:
    """What joules are asked for: intervals between edges of a timeline; an array value a row."""

    first: Array
    """Edge where it starts."""
    last: Array
    """Edge where it stops."""
    rank: Array
    """Its phase's class."""
    parts: Array
    """Rows that share it equally: tokens of one step."""
    start_key: Array
    """Index into ``keys``: the clock that its start is known on."""
    stop_key: Array
    keys: list[Key]
    partial: Array
    request: Array
    """-1 where it is of none."""

    def __len__(self) -> int:
        return len(self.first)


def rows_of(timeline: Timeline, phases: Sequence[Phase], requests: Sequence[Request]) -> Rows:
    """Return the rows of ``phases`` and, after them, of the tokens of ``requests``.

    Token 0, and what came with it, gets an empty row.
    """
    keys: dict[Key, int] = {HOST_KEY: 0}

    def number(key: Key) -> int:
        return keys.setdefault(key, len(keys))

    columns = [
        timeline.index([p.start for p in phases]), timeline.index([p.stop for p in phases]),
        np.array([p.rank for p in phases], np.int64), np.ones(len(phases), np.int64),
        np.array([number(p.start_key) for p in phases], np.int64), np.array([number(p.stop_key) for p in phases], np.int64),
        np.array([p.partial for p in phases], bool),
        np.array([-1 if p.request is None else p.request for p in phases], np.int64),
    ]  # fmt: skip
    parts = [columns]
    for request in requests:
        tokens = request.tokens
        assert tokens is not None
        step, _, _ = tokens.each()
        n, key = len(step), number(tokens.key)
        start, stop = (
            np.clip(t, timeline.edges[0], timeline.edges[-1])[step] for t in (tokens.start, tokens.stop)
        )
        parts.append([
            timeline.index(start), timeline.index(stop), np.zeros(n, np.int64), tokens.count[step],
            np.full(n, key), np.full(n, key), np.full(n, request.partial), np.full(n, request.number),
        ])  # fmt: skip
    first, last, rank, share, start_key, stop_key, partial, numbers = (
        np.concatenate(c) for c in zip(*parts, strict=True)
    )
    return Rows(first, last, rank, share, start_key, stop_key, list(keys), partial, numbers)

"""What a PowerSensor3 measured becomes rows, gaps of true length, marks, and readings of its clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from melt_stream.clock import Clock, Reading, ReadingKind
from melt_stream.collectors._powersensor3 import VOLTS_PER_LEVEL, Pair
from melt_stream.collectors._powersensor3_framing import Beat, Rows
from melt_stream.collectors._powersensor3_timeline import (
    TICK_NS,
    Gap,
    Marked,
    Piece,
    Samples,
    Shown,
    Timeline,
)
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import NS, A, V, W

Array = np.ndarray[Any, Any]
CLOCK = Clock("sample", tick_ns=TICK_NS)
"""The box's microseconds, of which a set tells 10 bits; one stamp a set, at its end."""
MARKS = Stream("marks", clock=CLOCK, sent=Column(NS, pa.int64()))
"""Sets that bear a mark; ``sent``: when the host asked for it, null where it did not."""
TOTAL = "total"
POWERED = 1.0
"""Volts below which a pair is taken to be off: they cannot tell what a step of its current is in watts."""


class Accuracy(NamedTuple):
    """What is known of each pair, as ``Rail`` has it."""

    gain: float | None = None
    offset: float | None = None
    noise: float | None = None
    source: str = ""


@dataclass
class Rails:
    """The streams and rails of the pairs; they stay the same when the box is connected anew."""

    boundary: Boundary
    boundaries: dict[str, Boundary]
    accuracy: Accuracy
    total: bool
    streams: dict[str, Stream] = field(default_factory=dict)
    rails: dict[str, Rail] = field(default_factory=dict)

    def declare(
        self, out: Outlet, pairs: Sequence[Pair], beat: Beat, volts: Array, *, averages: bool
    ) -> None:
        """Say what each pair is, now that one has seen how often it comes and at what voltage."""
        how: dict[str, Any] = (
            {"kind": "mean", "window_ns": beat.period * TICK_NS} if averages else {"kind": "gauge"}
        )
        several = self.total and len(pairs) > 1
        usual: Boundary = "rail" if several else self.boundary
        steps = []
        for pair, level in zip(pairs, volts.tolist(), strict=True):
            on = level if level >= POWERED else math.nan
            step, most = abs(pair.current.step) * on, pair.current.most * on
            steps.append(step)
            self._add(out, pair.stream, beat, Rail(
                pair.name, self.boundaries.get(pair.stream, usual), parent=TOTAL if several else None,
                resolution=_known(step), full_scale=_known(most), instrument="meter", **how, **self._known(),
            ), amps=Column(A, pa.float32()), volts=Column(V, pa.float32()))  # fmt: skip
        if several:
            self._add(out, TOTAL, beat, Rail(
                TOTAL, self.boundary, resolution=_known(math.hypot(*steps)), instrument="meter", **how,
                **self._together(len(pairs)),
            ), watts=Column(W, pa.float32()))  # fmt: skip

    def _add(self, out: Outlet, name: str, beat: Beat, rail: Rail, **columns: Any) -> None:
        stream = self.streams.setdefault(
            name, Stream(name, clock=CLOCK, period_ns=round(beat.period * TICK_NS), **columns)
        )
        out.rail(stream, self.rails.setdefault(name, rail))

    def _known(self) -> dict[str, Any]:
        return self.accuracy._asdict() | {"source": self.accuracy.source or UNKNOWN}

    def _together(self, count: int) -> dict[str, Any]:
        """Of a sum: gains may all be off the same way, zeros and noise are each pair's own."""
        more = {
            name: None if u is None else u * math.sqrt(count)
            for name, u in (("offset", self.accuracy.offset), ("noise", self.accuracy.noise))
        }
        return self._known() | more


UNKNOWN = (
    "unknown: the maker's documents (v1.6.1) state no accuracy; resolution: one level of the current's 10 bits, "
    f"{VOLTS_PER_LEVEL * 1e3:.3g} mV, at the voltage of the start"
)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass
class Writer:
    """Puts one connection's rows in the outlet."""

    out: Outlet
    pairs: Sequence[Pair]
    rails: Rails
    averages: bool
    """Whether a set is the mean over the time since the one before."""
    before: int
    """When the box was told to start."""
    timeline: Timeline | None = None
    _first: bool = True

    def take(self, beat: Beat | None, rows: Rows, arrival: int, asked: int | None) -> None:
        """Take rows that arrived together, once their ``beat`` is known; see ``Timeline.take``."""
        if beat is None:
            return
        if self.timeline is None:
            self.timeline = Timeline(beat)
            volts = np.median(rows.values[1::2], axis=1)
            self.rails.declare(self.out, self.pairs, beat, volts, averages=self.averages)
            self.out.fact("period_us", beat.period)
        self.put(self.timeline.take(rows, arrival, asked))

    def close(self) -> None:
        """Write what still waits."""
        if self.timeline is not None:
            self.put(self.timeline.finish())
            self.out.fact("ambiguous_gaps", self.timeline.ambiguous)

    def put(self, pieces: Iterable[Piece]) -> None:
        """Take them in their order."""
        for piece in pieces:
            match piece:
                case Samples():
                    self._samples(piece.tick, piece.values)
                case Gap():
                    for stream in (*self._streams(), MARKS):
                        lost = None if stream is MARKS else piece.lost
                        self.out.gap(stream, piece.start, piece.stop, piece.reason, lost=lost)
                case Marked():
                    self._mark(piece)
                case Shown():
                    self.out.clock_reading(Reading(CLOCK, piece.tick, not_after=piece.at, kind="arrival"))

    def _streams(self) -> list[Stream]:
        names = [pair.stream for pair in self.pairs]
        return [self.rails.streams[name] for name in (*names, *([TOTAL] if self._sums else []))]

    @property
    def _sums(self) -> bool:
        return self.rails.total and len(self.pairs) > 1

    def _samples(self, tick: Array, values: Array) -> None:
        if self._first:
            self._first = False
            self._not_before(int(tick[0]), self.before)
        for k, pair in enumerate(self.pairs):
            self.out.rows(
                self.rails.streams[pair.stream], tick=tick, amps=values[2 * k], volts=values[2 * k + 1]
            )
        if self._sums:
            watts = (values[0::2] * values[1::2]).sum(axis=0, dtype=np.float32)
            self.out.rows(self.rails.streams[TOTAL], tick=tick, watts=watts)

    def _mark(self, mark: Marked) -> None:
        """A set that ended less than a period before the box heard the question may still be the one it marks."""
        self.out.row(MARKS, tick=mark.tick, sent=mark.sent)
        if mark.sent is not None:
            self._not_before(mark.tick, mark.sent, mark.arrival)

    def _not_before(self, tick: int, before: int, after: int | None = None) -> None:
        assert self.timeline is not None
        width = math.ceil(self.timeline.beat.period) + 1
        kind: ReadingKind = "cause" if after is None else "round_trip"
        self.out.clock_reading(Reading(CLOCK, tick, width, not_before=before, not_after=after, kind=kind))

"""What the Monsoon decoded becomes rows, gaps of their true length, and readings of its sample clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from melt_stream.collectors._decode_monsoon import CALIBRATED, RESYNCED, SKIPPED, STATUS, UNCALIBRATED
from melt_stream.collectors._lateness import Lateness
from melt_stream.collectors._monsoon import Decoded, Decoder
from melt_stream.collectors._monsoon_written import PERIOD_NS, Hole, Written
from melt_stream.collectors._serial import Block
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

NUMBERS = 16
"""A packet's number is counted modulo this."""
LATE_NS = 10e6
"""Less than half of the 16 packets of 7 samples (22.4 ms) that the number does not show."""
JITTER_NS = 3e6
HOLD_NS = 350_000_000
"""How long what came late is held back: a slow host catches up within it, lost samples never come."""
BACKLOG = 1024
"""A block of so many bytes was waiting: how late it came says nothing."""
WHY = {
    CALIBRATED: "calibration: the box measured its own reference",
    UNCALIBRATED: "before the first calibration",
    SKIPPED: "lost: packet numbers skipped",
}


@dataclass
class _Held:
    decoded: Decoded
    block: Block
    late: float

    @property
    def skipped(self) -> bool:
        """Whether numbers were skipped in it."""
        return bool((self.decoded.events[:, 0] == SKIPPED).any())


@dataclass
class Rows:
    """Puts one stretch of sampling in the outlet."""

    out: Outlet
    stream: Stream
    decoder: Decoder
    _late: Lateness = field(default_factory=lambda: Lateness(PERIOD_NS))
    _held: list[_Held] = field(default_factory=list)
    _least: float = 0.0
    _written: Written = field(init=False)

    def __post_init__(self) -> None:
        self._written = Written(self.out, self.stream.clock)

    def take(self, decoded: Decoded, block: Block) -> None:
        """Take what one block gave; rows are handed over at once unless it came suspiciously late."""
        if not len(decoded.tick) and not len(decoded.events):
            return
        late = self._late.of(decoded.next_tick, block.arrival)
        held = _Held(decoded, block, late)
        if late < LATE_NS:
            for one in [*self._held, held]:
                self._commit(one)
            self._held = []
            return
        if not self._held:
            self._least = float("inf")
        self._held.append(held)
        if len(block.data) < BACKLOG:
            self._least = min(self._least, late)
        if block.arrival - self._held[0].block.arrival > HOLD_NS and self._least < float("inf"):
            self._resolve()

    def close(self) -> None:
        """Hand over what is held back."""
        if self._held and self._least < float("inf"):
            self._resolve()
        for held in self._held:
            self._commit(held)
        self._held = []
        self._written.close()

    def _resolve(self) -> None:
        """Nothing caught up: so many times 16 packets more were lost than their numbers say."""
        held, self._held = self._held, []
        packet = self.decoder.in_packet
        lost = round(self._least / (NUMBERS * packet * PERIOD_NS)) * NUMBERS * packet
        if lost:
            where = _place(held, lost * PERIOD_NS)
            _insert(held[where].decoded, lost)
            for one in held[where + 1 :]:
                one.decoded.tick += lost
                one.decoded.events[:, 2] += lost
            for one in held[where:]:
                one.decoded.next_tick += lost
            self.decoder.shift(lost)
        for one in held:
            self._commit(one)

    def _commit(self, held: _Held) -> None:
        decoded, arrival = held.decoded, held.block.arrival
        holes = []
        for kind, row, tick, amount in decoded.events.tolist():
            if kind == RESYNCED:
                self.out.fact("resynchronised", {"tick": tick, "bytes": amount})
            elif kind != STATUS:
                holes.append(Hole(row, tick, amount, WHY.get(kind, "a packet of an unknown kind")))
        values = {self.stream: {"volts": decoded.volts, "amps": decoded.amps}}
        self._written.block(decoded.tick, values, holes)
        late = self._late.of(decoded.next_tick, arrival)
        self._late.saw(decoded.next_tick, arrival)
        self._written.arrived(late, decoded.next_tick - 1, arrival)


def _place(held: list[_Held], lost_ns: float) -> int:
    """Return the block in which samples were lost: from it on, all are as late; a skip close behind is its trace."""
    first, jitter = len(held) - 1, min(LATE_NS, JITTER_NS + lost_ns / 20)
    while first and held[first - 1].late > lost_ns - jitter:
        first -= 1
    return next((i for i in range(first, min(first + 3, len(held))) if held[i].skipped), first)


def _insert(decoded: Decoded, lost: int) -> None:
    """Add ``lost`` samples to the first skip of a block, or where its new samples begin: nothing else tells where."""
    skips = np.flatnonzero(decoded.events[:, 0] == SKIPPED)
    if len(skips):
        at, row = int(skips[0]), int(decoded.events[skips[0], 1])
        decoded.events[at, 3] += lost
        decoded.events[at + 1 :, 2] += lost
    else:
        row = min(decoded.whole_before, len(decoded.tick))
        at = int(np.searchsorted(decoded.events[:, 1], row, side="left"))
        tick = decoded.tick[row] if row < len(decoded.tick) else decoded.next_tick
        decoded.events = np.insert(decoded.events, at, (SKIPPED, row, tick, lost), axis=0)
        decoded.events[at + 1 :, 2] += lost
    decoded.tick[row:] += lost

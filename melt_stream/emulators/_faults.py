"""
Faults to order, in one small language for ``--fault``::

    lose@1.5:100      100 bytes are lost, 1.5 s after streaming began
    junk@2:16         16 bytes of junk come between two packets
    skip@2:40         40 samples are not sent, though their counters go on
    stall@3:0.5       nothing is sent for 0.5 s; what was measured then is lost
    unplug@4          the cable is pulled
    stale             it already streams when somebody opens it
    rate:150          its clock runs 150 ppm fast (-150: slow)
    lose@1.5/2:100    ... and again every 2 s

An instrument may know faults of its own (``over_current@2``); an amount left out is 1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.errors import ConfigError

GRAMMAR = re.compile(
    r"(?P<kind>[a-z_]+)(@(?P<at>\d+(\.\d+)?)(/(?P<every>\d+(\.\d+)?))?)?(:(?P<amount>[+-]?\d+(\.\d+)?))?"
)
STANDING = frozenset({"stale", "rate"})
COMMON = frozenset({"lose", "junk", "skip", "stall", "unplug"}) | STANDING


@dataclass
class Fault:
    """One order."""

    kind: str
    at: float = 0.0
    """Seconds since streaming began."""
    amount: float = 1.0
    every: float | None = None
    """Seconds until the next of its kind; None: once."""


class Done(NamedTuple):
    """A fault that was played: what a test compares the record with."""

    kind: str
    amount: float
    sample: int
    """How many samples had been made since streaming began."""
    seconds: float


@dataclass
class Faults:
    """The faults of one emulator, and which of them were played."""

    orders: list[Fault] = field(default_factory=list)
    done: list[Done] = field(default_factory=list, init=False)
    seed: int = 1
    _lost: int = field(default=0, init=False)

    @classmethod
    def parse(cls, texts: Iterable[str], own: Collection[str] = ()) -> Faults:
        """Read orders as ``--fault`` has them; ``own`` are the instrument's. Raises ``ConfigError``."""
        return cls([_parse(text, COMMON | set(own)) for text in texts])

    @property
    def rate(self) -> float:
        """How much faster than nominal the clock runs: 1.00015 for 150 ppm."""
        return 1 + sum(order.amount for order in self.orders if order.kind == "rate") / 1e6

    @property
    def stale(self) -> bool:
        """Whether it streams before anybody asked."""
        return any(order.kind == "stale" for order in self.orders)

    def due(self, kind: str, seconds: float, sample: int) -> float:
        """Take the faults of a kind that are due ``seconds`` after streaming began; return their amounts' sum, or 0."""
        total = 0.0
        for order in [order for order in self.orders if order.kind == kind and order.kind not in STANDING]:
            if seconds < order.at:
                continue
            total += order.amount
            self.done.append(Done(kind, order.amount, sample, seconds))
            if order.every:
                order.at += order.every
            else:
                self.orders.remove(order)
        return total

    def harm(self, data: bytes, seconds: float, sample: int) -> bytes:
        """Return bytes that are about to be sent as ``junk`` and ``lose`` leave them; whole packets, please."""
        if junk := int(self.due("junk", seconds, sample)):
            data = random.Random(self.seed).randbytes(junk) + data  # noqa: S311 - no secret
        self._lost += int(self.due("lose", seconds, sample))
        if self._lost:
            cut = min(self._lost, max(0, len(data) - 1))
            middle = (len(data) - cut) // 2  # never at an edge: a loss that starts and ends within packets
            self._lost -= cut
            data = data[:middle] + data[middle + cut :]
        return data


def _parse(text: str, kinds: Collection[str]) -> Fault:
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--fault {text}: expected KIND[@SECONDS[/EVERY]][:AMOUNT], as in lose@1.5:100 or rate:150"
        )
    kind = match["kind"]
    if kind not in kinds:
        raise ConfigError(f"--fault {text}: expected one of {', '.join(sorted(kinds))}, got {kind!r}")
    if kind not in STANDING and match["at"] is None:
        raise ConfigError(f"--fault {text}: expected when, in seconds, as in {kind}@1.5; got none")
    every = float(match["every"]) if match["every"] else None
    return Fault(kind, float(match["at"] or 0), float(match["amount"] or 1), every)

"""Batches, and what takes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from melt_stream.clock import HOST, Clock
from melt_stream.stream import Stream


@dataclass(frozen=True)
class Source:
    """A stream as one collector instance fills it: stored as ``<instance>.<stream>``."""

    instance: str
    stream: Stream
    device: str = "host"

    @property
    def key(self) -> str:
        """The name under which it is stored."""
        return f"{self.instance}.{self.stream.name}"

    @property
    def clock(self) -> str:
        """The stored name of its clock."""
        return clock_key(self.instance, self.stream.clock)

    @cached_property
    def schema(self) -> pa.Schema:
        """The stream's schema; its metadata say whose it is and what its ticks are."""
        clock = self.stream.clock
        facts = {
            "instance": self.instance,
            "stream": self.stream.name,
            "device": self.device,
            "role": self.stream.role,
            "clock": self.clock,
            "tick_ns": repr(clock.tick_ns),
            "wrap": "" if clock.wrap is None else str(clock.wrap),
            "period_ns": "" if self.stream.period_ns is None else repr(self.stream.period_ns),
        }
        return self.stream.schema.with_metadata(facts)


def clock_key(instance: str, clock: Clock) -> str:
    """Return the stored name of a clock that ``instance`` declares."""
    return clock.name if clock.name == HOST.name or "." in clock.name else f"{instance}.{clock.name}"


class Batch(NamedTuple):
    """Some consecutive rows of one source; ``data.schema`` is ``source.schema``."""

    source: Source
    data: pa.RecordBatch


class Sink(Protocol):
    """Takes what is recorded.

    ``consume`` runs until ``batches`` ends, which it does when the run has ended and every row was handed over;
    it then writes its footers and returns. Each item is the list of batches of one flush, in the order in which
    they came. A sink whose class attribute ``policy`` is ``"wait"`` gets every batch; any other has a bounded
    queue that drops the oldest, counted. No sink delays another.

    It may have ``prepare()``, called in a thread before it is fed, and a ``trio.Event`` called ``ending``: setting it
    ends the run in order while it goes on taking what comes; it raises at the end to say why.
    """

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> Any:
        """Run; return when ``batches`` ends."""

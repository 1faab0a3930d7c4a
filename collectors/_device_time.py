"""A device's own time stamps, which wrap, begin again and arrive garbled, as ticks that do neither."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
SLACK_NS = 500_000_000
"""How far a device's time may run ahead of the host's before it is not believed."""


class Stamped(NamedTuple, Generic[T]):
    """A record whose time is believed."""

    epoch: int
    tick: int
    arrival: int
    record: T


@dataclass
class Timeline(Generic[T]):
    """Unwraps a device's count, and tells a restart from a garbled number.

    Between two records the device cannot have counted more than the host's clock did, but for ``SLACK_NS`` (less is
    possible: records wait in buffers). A count that does not fit is held back: it was garbled where the next fits the
    old line, and a restart where the next goes on from it.
    """

    tick_ns: float
    wrap: int | None = None
    """The count at which the device starts again from 0."""
    epoch: int = 0
    garbled: int = 0
    """Records thrown away for their time, since somebody last set it to 0."""
    _last: Stamped[T] | None = None
    _count: int = 0
    _offset: float | None = field(default=None)
    """Smallest arrival less device time, ns: the fastest delivery."""
    _suspect: tuple[int, int, T] | None = None

    def take(self, count: int, arrival: int, record: T) -> list[Stamped[T]]:
        """Return the records believed now: usually this one; after a restart the held one too."""
        if self._last is None:
            return [self._begin(count, arrival, record)]
        if (tick := self._next(count, arrival)) is not None:
            self.garbled += self._suspect is not None
            self._suspect = None
            return [self._accept(tick, count, arrival, record)]
        suspect, self._suspect = self._suspect, (count, arrival, record)
        if suspect is None:
            return []
        if self._goes_on(suspect, count, arrival):
            self._suspect = None
            self.epoch += 1
            return [self._begin(*suspect), self._accept(count, count, arrival, record)]
        self.garbled += 1
        return []

    def _next(self, count: int, arrival: int) -> int | None:
        """Return the tick that continues the line, or None where none does."""
        assert self._last is not None
        assert self._offset is not None
        step = count - self._count
        if self.wrap is not None:
            if count >= self.wrap:
                return None
            step %= self.wrap
            elapsed = (arrival - self._last.arrival) / self.tick_ns
            step += max(0, round((elapsed - step) / self.wrap)) * self.wrap
        tick = self._last.tick + step
        ahead = tick * self.tick_ns - (arrival - self._offset)
        return tick if step >= 0 and ahead <= SLACK_NS else None

    def _goes_on(self, suspect: tuple[int, int, T], count: int, arrival: int) -> bool:
        step = count - suspect[0]
        return step > 0 and step * self.tick_ns <= arrival - suspect[1] + SLACK_NS

    def _begin(self, count: int, arrival: int, record: T) -> Stamped[T]:
        self._offset = None
        if self.wrap is not None and count >= self.wrap:
            self.wrap = None  # it counts in more bits than we were told
        return self._accept(count, count, arrival, record)

    def _accept(self, tick: int, count: int, arrival: int, record: T) -> Stamped[T]:
        delay = arrival - tick * self.tick_ns
        self._offset = delay if self._offset is None else min(self._offset, delay)
        self._count = count
        self._last = Stamped(self.epoch, tick, arrival, record)
        return self._last

"""What a Joulescope's driver delivers, put together by sample id. Pure: values in, rows and holes out.

A value is a dict, as PyPI pyjoulescope-driver 2.2 makes it: ``sample_id`` of its first sample, counted at ``sample_rate`` (2 MHz)
whatever the output rate; ``decimate_factor``, how much it counts from sample to sample; ``data``; ``time_map``. What was dropped on the way
shows as a sample id further on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors._logic import changes
from melt_stream.errors import DeviceError, Transient

Array = np.ndarray[Any, Any]
HZ = 2_000_000
"""What sample ids count, in the JS110 and the JS220."""
EPOCH_NS = 1_514_764_800 * 10**9
"""2018-01-01 UTC, from which the driver's times count, in 2^-30 s."""
FAR = HZ
"""Ids that go back so far are another count."""


class Block(NamedTuple):
    """One delivery of one signal."""

    first: int
    step: int
    data: Array


def block(value: Mapping[str, Any], topic: str) -> Block:
    """Check a delivery. Raises ``DeviceError`` where it is not what the driver is known to deliver."""
    try:
        found = Block(int(value["sample_id"]), int(value["decimate_factor"]), np.asarray(value["data"]))
        rate = value["sample_rate"]
    except (KeyError, TypeError, ValueError) as exc:
        raise DeviceError(f"{topic}: expected a block of samples, got {str(value)[:80]} ({exc!r})") from exc
    if rate != HZ or found.step < 1 or found.data.ndim != 1:
        raise DeviceError(
            f"{topic}: expected samples counted at {HZ} Hz, got {rate} Hz, a sample each {found.step} ids; is it a JS110 or a JS220?"
        )
    return found


class Rows(NamedTuple):
    """Samples that follow one another, of all signals."""

    first: int
    columns: dict[str, Array]


class Gap(NamedTuple):
    """Samples are missing between two."""

    start: int
    stop: int
    lost: int


@dataclass
class Together:
    """Signals that come each by itself, side by side; a sample counts where all of them have it."""

    names: tuple[str, ...]
    step: int
    expected: int | None = None
    """Id of the next row."""
    _waiting: dict[str, list[tuple[int, Array]]] = field(default_factory=dict)
    _next: dict[str, int] = field(default_factory=dict)

    def put(self, name: str, new: Block) -> None:
        """Add a block. Raises ``Transient`` where its ids belong to another count, ``DeviceError`` for another rate."""
        if new.step != self.step:
            raise DeviceError(f"{name}: expected a sample each {self.step} ids, got each {new.step}")
        first, data = new.first, new.data
        known = self._next.get(name, first)
        if first < known - FAR:
            raise Transient(
                f"{name}: expected sample id {known} or more, got {first}: the instrument began again"
            )
        if first < known:  # twice
            again = -(-(known - first) // self.step)
            first, data = first + again * self.step, data[again:]
        if len(data):
            self._waiting.setdefault(name, []).append((first, data))
            self._next[name] = first + len(data) * self.step

    def take(self) -> Iterator[Rows | Gap]:
        """Yield what all signals have."""
        while all(self._waiting.get(name) for name in self.names):
            start = max(self._waiting[name][0][0] for name in self.names)
            if not all(self._skip(name, start) for name in self.names):
                continue
            count = min(len(self._waiting[name][0][1]) for name in self.names)
            if self.expected is not None and start > self.expected:
                lost = round((start - self.expected) / self.step)
                yield Gap(self.expected - self.step, start, lost)
            yield Rows(start, {name: self._pop(name, count) for name in self.names})
            self.expected = start + count * self.step

    def _skip(self, name: str, start: int) -> bool:
        """Drop what a signal has before ``start``; return whether its next sample is the one there."""
        first, data = self._waiting[name][0]
        early = -(-(start - first) // self.step)
        if early <= 0:
            return True
        if early >= len(data):
            self._waiting[name].pop(0)
            return False
        self._waiting[name][0] = first + early * self.step, data[early:]
        return first + early * self.step == start

    def _pop(self, name: str, count: int) -> Array:
        first, data = self._waiting[name][0]
        if count == len(data):
            self._waiting[name].pop(0)
        else:
            self._waiting[name][0] = first + count * self.step, data[count:]
        return data[:count]


class Change(NamedTuple):
    """An input has this level from a sample on."""

    sample: int
    level: bool


@dataclass
class Input:
    """One logic input. A block does not tell how many bits of its last byte count, so it waits for the next one's id."""

    _level: bool | None = None
    _last: Block | None = None

    def feed(self, new: Block) -> Iterator[Change | Gap]:
        """Take a block, yield what the one before it showed."""
        if (last := self._last) is not None:
            bits = 8 * len(last.data)
            ahead = (new.first - last.first) // last.step
            yield from self._show(last, min(bits, ahead))
            if ahead > bits:
                yield Gap(last.first + (bits - 1) * last.step, new.first, ahead - bits)
        self._last = new

    def close(self) -> Iterator[Change | Gap]:
        """Yield what the last block's whole bytes show."""
        if self._last is not None:
            yield from self._show(self._last, 8 * (len(self._last.data) - 1))
            self._last = None

    def _show(self, one: Block, count: int) -> Iterator[Change]:
        if count <= 0:
            return
        at, levels = changes(one.data, count, self._level)
        for sample, level in zip(at.tolist(), levels.tolist(), strict=True):
            yield Change(one.first + sample * one.step, level)
            self._level = level


class Map(NamedTuple):
    """The instrument's sample ``counter`` was at ``utc_ns``, as the driver says."""

    counter: int
    utc_ns: int


def time_map(value: Mapping[str, Any]) -> Map | None:
    """Return the map that came with a block; None where there is none yet."""
    told = value.get("time_map")
    if not isinstance(told, Mapping) or not told.get("offset_time"):
        return None
    return Map(int(told["offset_counter"]), EPOCH_NS + (int(told["offset_time"]) * 10**9 >> 30))

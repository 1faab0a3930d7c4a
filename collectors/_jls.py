"""What a .jls file holds, as the process that reads it tells: checked, and put together by sample. Pure but for the pipe."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from melt_stream.clock import Clock
from melt_stream.errors import DataError
from melt_stream.stream import NAME

Array = np.ndarray[Any, Any]
COLUMNS = {"A": "amps", "V": "volts", "W": "watts"}
"""By unit."""
LONGEST_LINE = 1 << 20
LONGEST_DATA = 1 << 24
MOST_SAMPLES = 1 << 42
EPOCH_NS = 1_514_764_800 * 10**9
"""2018-01-01 UTC, from which times in a .jls file count, in 2^-30 s."""
LAST = 4_000_000_000 << 30
"""The latest time that is believed, in 2144."""


class Receive(Protocol):
    """A pipe's end."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for some bytes; none at the end."""


async def messages(pipe: Receive) -> AsyncGenerator[tuple[dict[str, Any], bytes], None]:
    """Yield (message, the bytes that follow it). Raises ``ValueError`` where it is none."""
    rest = bytearray()
    while data := await pipe.receive_some(1 << 18):
        rest += data
        while (end := rest.find(b"\n")) >= 0:
            message = json.loads(rest[:end])
            size = message["bytes"]
            if not 0 <= size <= LONGEST_DATA:
                raise ValueError(f"{size} bytes after a message")
            if len(rest) < end + 1 + size:
                break
            yield message, bytes(rest[end + 1 : end + 1 + size])
            del rest[: end + 1 + size]
        if len(rest) > LONGEST_LINE + LONGEST_DATA:
            raise ValueError("a message without an end")


class Signal(NamedTuple):
    """One signal of a fixed rate."""

    number: int
    source: int
    name: str
    units: str
    hz: int
    kind: str
    """``f32``, ``u1`` or ``other``."""
    offset: int
    """Sample id of its first sample; what is read of a file counts from there."""
    length: int


def signal(told: dict[str, Any], path: str) -> Signal:
    """Check a signal's definition. Raises ``DataError``."""
    hz, offset, length = (int(told[key]) for key in ("sample_rate", "sample_id_offset", "length"))
    if not 0 < hz <= 10**9 or abs(offset) > 1 << 60 or not 0 <= length <= MOST_SAMPLES:
        raise DataError(
            f"{path}, signal {told['signal_id']} ({told['name']}): expected a rate and a length, got {hz} Hz, "
            f"{length} samples from {offset} on"
        )
    name, units = str(told["name"] or ""), str(told["units"] or "")
    return Signal(told["signal_id"], told["source_id"], name, units, hz, told["data_type"], offset, length)


class Pair(NamedTuple):
    """Which sample there was at which time (2^-30 s since 2018, UTC)."""

    sample: int
    time: int


def utc_map(data: bytes, one: Signal, path: str) -> list[Pair]:
    """Read a signal's UTC map; times outside of 2018 to 2144 are none. Raises ``DataError`` where it runs backwards."""
    samples, times = np.frombuffer(data, "<i8").reshape(2, -1)
    pairs = [
        Pair(sample + one.offset, time)
        for sample, time in zip(samples.tolist(), times.tolist(), strict=True)
        if 0 < time < LAST and abs(sample) < 1 << 60
    ]
    for number, (a, b) in enumerate(itertools.pairwise(pairs), 1):
        if b.sample < a.sample or b.time < a.time:
            raise DataError(
                f"{path}, the UTC map of signal {one.number} ({one.name}), entry {number}: expected samples and times "
                f"that increase, got {a.sample} at {a.time} and then {b.sample} at {b.time}"
            )
    return [b for a, b in zip([None, *pairs], pairs, strict=False) if a is None or b.sample > a.sample]


class Gap(NamedTuple):
    """Samples that are missing between two."""

    start: int
    stop: int
    lost: int


@dataclass
class Holes:
    """Finds runs of missing samples, over the edges of blocks."""

    _open: int | None = None
    """The first missing one of a run that goes on."""

    def feed(self, first: int, missing: Array) -> Iterator[Gap]:
        """Take whether each sample from ``first`` on is missing; yield the runs that end."""
        edges = np.flatnonzero(np.diff(missing.astype(np.int8), prepend=int(self._open is not None)))
        for edge in (edges + first).tolist():
            if self._open is None:
                self._open = edge
            else:
                yield Gap(self._open - 1, edge, edge - self._open)
                self._open = None

    def close(self, end: int) -> Iterator[Gap]:
        """Yield the run that lasts to the end, if there is one."""
        if self._open is not None:
            yield Gap(self._open - 1, end, end - self._open)


@dataclass
class Group:
    """Signals of one source and rate: one clock, one stream of power, and inputs."""

    name: str
    source: int
    clock: Clock
    columns: dict[str, Signal] = field(default_factory=dict)
    inputs: dict[str, Signal] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def signals(self) -> list[Signal]:
        """All of them."""
        return [*self.columns.values(), *self.inputs.values()]

    @property
    def first(self) -> int:
        """Id of the first sample."""
        return min(one.offset for one in self.signals)

    @property
    def hz(self) -> int:
        """Samples a second."""
        return self.signals[0].hz

    def start(self) -> int | None:
        """Return when the first sample was, by the UTC map."""
        if not self.pairs:
            return None
        return self.pairs[0].time - ((self.pairs[0].sample - self.first) << 30) // self.hz

    def table(self, blocks: dict[int, tuple[int, Array]]) -> tuple[int, dict[str, Array]]:
        """Put blocks of one stretch side by side, by signal (first sample, values): (first sample, columns); nan is missing."""
        there = {name: blocks[one.number] for name, one in self.columns.items() if one.number in blocks}
        first = min(start for start, _ in there.values())
        stop = max(start + len(values) for start, values in there.values())
        columns = {name: np.full(stop - first, np.nan, np.float32) for name in self.columns}
        for name, (start, values) in there.items():
            columns[name][start - first : start - first + len(values)] = values
        return first, columns


def groups(signals: list[Signal]) -> tuple[list[Group], list[str]]:
    """Group signals; return those that are of no use here, too, by name."""
    found: dict[tuple[int, int], Group] = {}
    left_out: list[str] = []
    taken: set[str] = {"marks_utc"}
    for one in signals:
        number = len(found) + 1 if (one.source, one.hz) not in found else 0
        suffix = "" if number <= 1 else str(number)
        taken |= {f"main{suffix}", f"marks{suffix}"}
        group = found.get((one.source, one.hz)) or Group(
            f"main{suffix}", one.source, Clock(f"sample{suffix}", tick_ns=1e9 / one.hz)
        )
        column = COLUMNS.get(one.units) if one.kind == "f32" else None
        if column is not None and column not in group.columns:
            group.columns[column] = one
        elif one.kind == "u1":
            name = re.sub(r"[^a-z0-9]+", "_", one.name.lower()).strip("_")
            name = name if NAME.fullmatch(name) and name not in taken else f"signal_{one.number}"
            taken.add(name)
            group.inputs[name] = one
        else:
            left_out.append(one.name)
            continue
        found[one.source, one.hz] = group
    return list(found.values()), left_out

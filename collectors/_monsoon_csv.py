"""What the columns of a Monsoon's CSV are, and when PyMonsoon's samples were taken. Pure.

PyMonsoon stamps a sample when its packet is read, with the host's clock: samples share stamps, stamps come late in bursts, and calibrations
and dropped samples are not in the file. So times are taken from stamps a quarter of a second apart, and samples lie evenly between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.units import A, Unit, V, W

Array = np.ndarray[Any, Any]
SAMPLE_S = 200e-6
ANCHORS_S = 0.25
LOST, LEAST_S = 0.1, 0.02
"""Fewer samples than this part, and this time, less than there is room for: some are missing. Calibrations take 1 %, and a
clock of 15.6 ms is that coarse."""
_NAME = re.compile(r"(main|usb|aux)\s*(avg)?\s*(current|power|voltage)?\s*\(\s*(\w+)\s*\)", re.IGNORECASE)
_QUANTITIES = {"amps": A, "volts": V, "watts": W}


class Quantity(NamedTuple):
    """A column of numbers."""

    column: int
    channel: str
    quantity: str
    """amps, volts or watts."""
    factor: float
    """To A, V or W."""


class Layout(NamedTuple):
    """Which columns hold what."""

    time: int
    quantities: list[Quantity]
    averaged: bool
    """A PowerTool export: each row is a mean."""


def layout(names: Sequence[str], columns: int) -> Layout | None:
    """Read a header; a file without one holds seconds, mA, V. None where it is not a Monsoon's."""
    if not names:
        main = [Quantity(1, "main", "amps", 1e-3), Quantity(2, "main", "volts", 1.0)]
        return Layout(0, main, averaged=False) if columns == 3 else None
    times = [k for k, name in enumerate(names) if re.match(r"time\s*\(", name, re.IGNORECASE)]
    found, averaged = [], False
    for column, name in enumerate(names):
        if (match := _NAME.fullmatch(name)) is None:
            continue
        for quantity, base in _QUANTITIES.items():
            try:
                found.append(Quantity(column, match[1].lower(), quantity, Unit(match[4]).to(base)))
            except ValueError:
                continue
            averaged = averaged or bool(match[2])
    return Layout(times[0], found, averaged) if times and found else None


class Placed(NamedTuple):
    """Samples with times, in seconds."""

    seconds: Array
    values: Array


@dataclass
class Spread:
    """Gives samples their times; ``by_start`` where a stamp is that of the first of those that share it (whole seconds)."""

    period_s: float
    by_start: bool = False
    _stamps: list[Array] = field(default_factory=list)
    _values: list[Array] = field(default_factory=list)
    _anchor: float | None = None
    """The time of the last sample placed (the first one to place, ``by_start``)."""
    _spacing: float = field(init=False)
    """Between the samples that were placed last."""

    def __post_init__(self) -> None:
        self._spacing = self.period_s

    def feed(self, stamps: Array, values: Array) -> Iterator[Placed]:
        """Take samples in the order of the file; yield those whose place is known."""
        self._stamps.append(stamps)
        self._values.append(values)
        stamps, values = np.concatenate(self._stamps), np.concatenate(self._values)
        change = np.flatnonzero(np.diff(stamps)) + 1  # where another stamp begins
        done = 0
        for place in change.tolist():
            stamp = float(stamps[place] if self.by_start else stamps[place - 1])
            if self._anchor is not None and stamp - self._anchor < ANCHORS_S:
                continue
            yield from self._between(stamps[done:place], values[done:place], stamp)
            done, self._anchor = place, stamp
        self._stamps, self._values = [stamps[done:]], [values[done:]]

    def finish(self) -> Iterator[Placed]:
        """Yield the samples that are left."""
        stamps, values = np.concatenate(self._stamps), np.concatenate(self._values)
        if not len(stamps):
            return
        begin, last, length = self._anchor, float(stamps[-1]), len(stamps) * self._spacing
        if begin is None:
            end = last + length if self.by_start else last
        elif self.by_start or last - begin - length <= LEAST_S:  # the last stamp says little
            end = begin + length
        else:
            end = last
        yield from self._between(stamps, values, end)

    def _between(self, stamps: Array, values: Array, end: float) -> Iterator[Placed]:
        """Place samples after the anchor and up to ``end``."""
        many, begin = len(stamps), self._anchor
        if begin is None:
            yield Placed(self._before(end, many), values)
        elif end - begin - many * self.period_s <= max(LOST * (end - begin), LEAST_S):
            self._spacing = (end - begin) / many
            yield Placed(self._evenly(begin, end, many), values)
        else:  # some are missing: where the stamps leave most room
            early = int(np.argmax(np.diff(stamps, prepend=begin)))
            until = max(begin, float(stamps[early - 1])) if early else begin
            yield Placed(self._evenly(begin, until, early), values[:early])
            late = self._before(end, many - early)
            if late[0] < until:
                late = self._evenly(until, end, many - early)
            yield Placed(late, values[early:])

    def _evenly(self, begin: float, end: float, many: int) -> Array:
        """Times of samples after ``begin`` and up to ``end`` (the other way round, ``by_start``)."""
        shift = 0 if self.by_start else 1
        times: Array = begin + (np.arange(many) + shift) * ((end - begin) / max(1, many))
        return times

    def _before(self, end: float, many: int) -> Array:
        """Times of samples of which the last (the next, ``by_start``) lies at ``end``."""
        shift = 0 if self.by_start else 1
        times: Array = end - (many - shift - np.arange(many)) * self.period_s
        return times

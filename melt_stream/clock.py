"""Clocks: the host's, those of instruments and devices, and readings that tie them together.

The only module that reads the host's time. Every time in melt_stream is an integer count of a declared
clock's ticks; the default is the host's ``CLOCK_MONOTONIC`` in nanoseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

Now = Callable[[], int]
"""Returns nanoseconds of the host's monotonic clock; never goes backwards."""

monotonic: Now = time.monotonic_ns

ReadingKind = Literal["round_trip", "arrival", "cause", "exact"]
"""How a reading was made: request and reply, one-way arrival, "not before the command", or by definition."""


@dataclass(frozen=True)
class Clock:
    """What a stream's ``tick`` column counts.

    A name without a dot belongs to the collector that declares it and is stored as ``<instance>.<name>``;
    ``host``, and names with a dot (a device's clock that several collectors share), are stored as they are.
    """

    name: str = "host"
    tick_ns: float = 1.0
    """Nominal length of a tick, in nanoseconds."""
    wrap: int | None = None
    """The count at which it starts again from 0, where it does and was not unwrapped yet."""
    rho_ppm: float = 15.0
    """How far its rate may stray from a fitted line, in ppm: 15 for a crystal, 500 where something slews it,
    0 for an exact line."""
    same_rate: bool = False
    """True where it is the host's own oscillator under another name (a server on this machine): drift is 0."""


HOST = Clock()


@dataclass(frozen=True)
class Reading:
    """The clock showed a time in [tick, tick + resolution) somewhere in [not_before, not_after] on the host.

    Either end may be open (``None``): a round trip, an arrival and "not before the command" are one type.
    """

    clock: Clock
    tick: int
    resolution: int = 1
    """In ticks; 0 in all readings of a clock: unknown, to be found from the data; in some: a moment of no length."""
    not_before: int | None = None
    """Host monotonic, ns."""
    not_after: int | None = None
    """Host monotonic, ns."""
    epoch: int = 0
    """Counts the clock's restarts (reboot, reconnect, new request)."""
    kind: ReadingKind = "round_trip"
    against: Clock = HOST
    """The clock that the two limits are on, in its ticks, where it is not the host's: a meter's board, say."""
    against_epoch: int = 0


REALTIME = Clock("host.realtime", rho_ppm=500.0)
BOOTTIME = Clock("host.boottime", rho_ppm=0.0, same_rate=True)
MONOTONIC_RAW = Clock("host.monotonic_raw", rho_ppm=500.0)


def read_host_clocks() -> list[Reading]:
    """Read the host's other clocks, each between two looks at the monotonic one."""
    readings = []
    for clock, read in _host_clocks():
        before = time.monotonic_ns()
        tick = read()
        readings.append(Reading(clock, tick, not_before=before, not_after=time.monotonic_ns()))
    return readings


def _host_clocks() -> list[tuple[Clock, Now]]:
    clocks: list[tuple[Clock, Now]] = [(REALTIME, time.time_ns)]
    for clock, name in (
        (BOOTTIME, "CLOCK_BOOTTIME"),
        (MONOTONIC_RAW, "CLOCK_MONOTONIC_RAW"),
    ):
        if (number := getattr(time, name, None)) is not None:  # macOS has no BOOTTIME
            clocks.append((clock, partial(time.clock_gettime_ns, number)))
    return clocks


def utc_ns() -> int:
    """The wall clock, for names and for people; never subtracted from anything."""
    return time.time_ns()

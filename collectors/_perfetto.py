"""Perfetto's traces of ``android.power``: the configuration that asks for one, and what its packets say. Pure.

Field numbers and meanings: google/perfetto, protos/perfetto/{config,trace} and android_power_data_source.cc (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from melt_stream.collectors._protobuf import Value, fields, float32, message, signed, text, unsigned

BATTERY = ("CHARGE", "CAPACITY_PERCENT", "CURRENT", "CURRENT_AVG")
VOLTAGE, SNAPSHOTS = "BATTERY_COUNTER_VOLTAGE", "snapshot_interval_ms"
"""Words that older perfettos do not know, and then refuse the whole configuration."""
NEWER = frozenset({VOLTAGE, SNAPSHOTS})
SNAPSHOT, STATS, BATTERY_COUNTERS, POWER_RAILS = 6, 35, 38, 40
TIMESTAMP, SEQUENCE, DROPPED, STAMPED_BY = 8, 10, 42, 58
REALTIME, BOOTTIME = 1, 6
LOSSES = {
    3: "overwritten chunks",
    18: "discarded chunks",
    19: "packets that writers lost",
    22: "packets too large",
}
"""Of TraceStats.BufferStats."""
FLUSH_MS, SNAPSHOT_MS = 1000, 1000


class Named(NamedTuple):
    """What a rail is called."""

    name: str
    subsystem: str
    rate_hz: int
    """Of its chip's samples."""


class Energy(NamedTuple):
    """A rail's counter."""

    rail: int
    """By its index."""
    boot_ms: int
    """When its chip was asked, CLOCK_BOOTTIME."""
    microjoules: int


class Rails(NamedTuple):
    """A PowerRails packet; names are in a trace's first only."""

    names: dict[int, Named]
    energies: list[Energy]


class Battery(NamedTuple):
    """A BatteryCounters packet: the gauge's numbers as they are, None where it gave none."""

    boot_ns: int
    charge: int | None = None
    capacity: float | None = None
    current: int | None = None
    average: int | None = None
    microvolts: int | None = None


class Clocks(NamedTuple):
    """A ClockSnapshot: both clocks, read one after the other."""

    boot_ns: int
    real_ns: int


class Lost(NamedTuple):
    """What the service says was lost since the trace began."""

    counts: dict[str, int]


class Dropped(NamedTuple):
    """Packets of this sequence may be missing before this one (always so of its first)."""

    sequence: int


Said = Rails | Battery | Clocks | Lost | Dropped


def config(poll_ms: int, *, rails: bool, battery: bool, words: Collection[str] = NEWER) -> str:
    """Return a trace's configuration as text: endless, written out each second; ``words`` are those of ``NEWER`` to use."""
    counters = [f"battery_counters: BATTERY_COUNTER_{name}" for name in BATTERY if battery]
    if battery and VOLTAGE in words:
        counters.append(f"battery_counters: {VOLTAGE}")
    power = [f"battery_poll_ms: {poll_ms}", *counters, *(["collect_power_rails: true"] if rails else [])]
    lines = [
        "buffers { size_kb: 1024 fill_policy: RING_BUFFER }",
        f'data_sources {{ config {{ name: "android.power" android_power_config {{ {" ".join(power)} }} }} }}',
        f"duration_ms: 0 write_into_file: true file_write_period_ms: {FLUSH_MS} flush_period_ms: {FLUSH_MS}",
    ]
    if SNAPSHOTS in words:
        lines.append(f"builtin_data_sources {{ {SNAPSHOTS}: {SNAPSHOT_MS} }}")
    return "\n".join(lines) + "\n"


def said(packet: bytes) -> Iterator[Said]:
    """Yield what a TracePacket says; nothing for kinds that do not concern us. Raises ``DataError``."""
    known = {TIMESTAMP, SEQUENCE, DROPPED, STAMPED_BY, SNAPSHOT, STATS, BATTERY_COUNTERS, POWER_RAILS}
    found = {number: value for number, value in fields(packet) if number in known}
    if unsigned(found.get(DROPPED, 0)):
        yield Dropped(unsigned(found.get(SEQUENCE, 0)))
    if SNAPSHOT in found:
        yield from _clocks(found[SNAPSHOT])
    if STATS in found:
        yield _lost(found[STATS])
    if POWER_RAILS in found:
        yield _rails(found[POWER_RAILS])
    if BATTERY_COUNTERS in found and TIMESTAMP in found and found.get(STAMPED_BY, BOOTTIME) in {0, BOOTTIME}:
        yield _battery(unsigned(found[TIMESTAMP]), found[BATTERY_COUNTERS])


def _clocks(value: Value) -> Iterator[Clocks]:
    shown = {}
    for number, each in fields(message(value)):
        if number == 1:
            clock = dict(fields(message(each)))
            shown[clock.get(1)] = unsigned(clock.get(2, 0))
    if BOOTTIME in shown and REALTIME in shown:
        yield Clocks(shown[BOOTTIME], shown[REALTIME])


def _lost(value: Value) -> Lost:
    counts = dict.fromkeys(LOSSES.values(), 0)
    for number, buffer in fields(message(value)):
        if number == 1:
            for kind, count in fields(message(buffer)):
                if kind in LOSSES:
                    counts[LOSSES[kind]] += unsigned(count)
    return Lost({what: count for what, count in counts.items() if count})


def _rails(value: Value) -> Rails:
    names, energies = {}, []
    for number, each in fields(message(value)):
        if number == 1:
            about = dict(fields(message(each)))
            rate = unsigned(about.get(4, 0))
            names[unsigned(about.get(1, 0))] = Named(text(about.get(2, b"")), text(about.get(3, b"")), rate)
        elif number == 2:
            count = dict(fields(message(each)))
            if 2 in count and 3 in count:
                energies.append(Energy(unsigned(count.get(1, 0)), unsigned(count[2]), unsigned(count[3])))
    return Rails(names, energies)


def _battery(boot_ns: int, value: Value) -> Battery:
    given = dict(fields(message(value)))

    def whole(number: int) -> int | None:
        return signed(given[number]) if number in given else None

    capacity = float32(given[2]) if 2 in given else None
    return Battery(boot_ns, whole(1), capacity, whole(3), whole(4), whole(7))

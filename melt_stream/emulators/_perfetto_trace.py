"""Traces as perfetto writes them, of the few messages that an ``android.power`` trace holds: the encoder.

Field numbers: google/perfetto, protos/perfetto/trace (Apache-2.0).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

REALTIME, MONOTONIC, BOOTTIME = 1, 3, 6
NEEDS_INCREMENTAL_STATE, INCREMENTAL_STATE_CLEARED = 2, 1


def varint(value: int) -> bytes:
    """Base 128, low bits first; a negative number as 64 bits of two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | float | bytes | str) -> bytes:
    """One field: whole numbers as varints, others as 32-bit floats, text and messages by their length."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def message(fields: Iterable[tuple[int, int | float | bytes | str]]) -> bytes:
    """Fields, in order."""
    return b"".join(field(number, value) for number, value in fields)


def packet(content: bytes, *, sequence: int = 1, dropped: bool = False) -> bytes:
    """One packet of a trace."""
    return field(1, content + field(10, sequence) + (field(42, 1) if dropped else b""))


def clocks(shown: Mapping[int, int]) -> bytes:
    """A packet's ClockSnapshot: ns by the clock's number."""
    return field(6, message((1, message([(1, clock), (2, ns)])) for clock, ns in shown.items()))


def battery(boot_ns: int, values: Mapping[int, int | float]) -> bytes:
    """A packet's BatteryCounters: 1 charge (uAh), 2 capacity (%), 3 current, 4 its average (uA), 7 voltage (uV)."""
    return field(8, boot_ns) + field(38, message(values.items()))


def rails(
    boot_ns: int, names: Mapping[int, tuple[str, str, int]], energies: Iterable[tuple[int, int, int]]
) -> bytes:
    """A packet's PowerRails: names are (rail, subsystem, rate) by index, energies (index, ms, uWs)."""
    described = [
        (1, message([(1, index), (2, rail), (3, subsystem), (4, rate)]))
        for index, (rail, subsystem, rate) in names.items()
    ]
    counted = [(2, message([(1, index), (2, ms), (3, uws)])) for index, ms, uws in energies]
    return field(8, boot_ns) + field(40, message([*described, *counted]))


def stats(*, overwritten: int = 0, lost: int = 0) -> bytes:
    """A packet's TraceStats, of one buffer."""
    return field(35, field(1, message([(2, 5), (3, overwritten), (19, lost)])))

"""What a POWER-Z KM003C is asked over USB and what it answers: frames to columns; no I/O.

Sources: okhsunrog/km003c-rs 97555a8 and the frames recorded there from a real meter; PyPI km003c 0.4.0 does the handshake and is held
against this module in tests. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from melt_stream.errors import Transient

Array = np.ndarray[Any, Any]
CONNECT, DISCONNECT, ACCEPT, REJECT, NOT_READABLE = 0x02, 0x03, 0x05, 0x06, 0x27
GET_DATA, START_GRAPH, STOP_GRAPH, PUT_DATA = 0x0C, 0x0E, 0x0F, 0x41
MEMORY_READ, STREAMING_AUTH = 0x44, 0x4C
QUEUE = 0x02
"""Attribute of the samples that were queued since they were asked for last."""
RATES = {2: 0, 10: 1, 50: 2, 1000: 3}
"""Samples a second, and what StartGraph calls that."""
TICKS_PER_S = 1000
SAMPLE = np.dtype([
    ("sequence", "<u2"), ("marker", "<u2"), ("vbus", "<i4"), ("ibus", "<i4"), ("cc1", "<u2"), ("cc2", "<u2"),
    ("d_plus", "<u2"), ("d_minus", "<u2"),
])  # fmt: skip
"""As on the wire: ms, unknown, uV, uA, and four lines in 1 mV (0.1 mV at 2 samples a second)."""


def request(kind: int, number: int, attribute: int = 0) -> bytes:
    """Make a command: ``number`` (0 to 255) comes back in its answer."""
    return struct.pack("<BBH", kind, number, attribute << 1)


class Frame(NamedTuple):
    """An answer's head."""

    kind: int
    number: int
    data: bytes
    """All of it."""


def frame(data: bytes) -> Frame:
    """Read the head. Raises ``Transient`` where there is none."""
    if len(data) < 4:
        raise Transient(f"expected an answer of 4 bytes or more, got {data.hex() or 'none'}")
    return Frame(data[0] & 0x7F, data[1], data)


def parts(answer: Frame) -> dict[int, bytes]:
    """Return what a PUT_DATA answer holds, by attribute.

    Raises ``Transient`` where its length is not what its parts' heads say: bytes were lost. (The count of words in its first
    head is not looked at: it is one less than usual in 5 of the 226 recorded answers with samples, which are whole.)
    """
    data, found, at, more = answer.data, dict[int, bytes](), 4, True
    if answer.kind != PUT_DATA:
        raise Transient(f"expected data, got an answer of kind {answer.kind:#04x}, {len(data)} bytes")
    while more:
        if at + 4 > len(data):
            raise Transient(f"expected another part at {at}, got the end")
        head = int.from_bytes(data[at : at + 4], "little")
        attribute, more, count, size = head & 0x7FFF, bool(head >> 15 & 1), head >> 16 & 0x3F, head >> 22
        length = size * max(1, count) if more or attribute != QUEUE else len(data) - at - 4
        found[attribute] = data[at + 4 : at + 4 + length]
        at += 4 + length
        if attribute == QUEUE and (length % SAMPLE.itemsize or (length // SAMPLE.itemsize - count) % 64):
            raise Transient(f"expected {count} samples of {SAMPLE.itemsize} bytes, got {length} bytes")
    if at != len(data):
        raise Transient(f"expected {at} bytes as its parts say, got {len(data)}")
    return found


def samples(answer: Frame) -> Array:
    """Return the queued samples of an answer, which may be none, as an array of ``SAMPLE``. Raises ``Transient``."""
    return np.frombuffer(parts(answer).get(QUEUE, b""), SAMPLE)


def columns(queued: Array, hz: int) -> dict[str, Any]:
    """Convert to V and A, as float32; ``hz`` tells in what the four lines are counted."""
    line = np.float32(1e-4 if hz == min(RATES) else 1e-3)
    return {
        "volts": (queued["vbus"] * 1e-6).astype(np.float32), "amps": (queued["ibus"] * 1e-6).astype(np.float32),
        **{name: queued[name] * line for name in ("cc1", "cc2", "d_plus", "d_minus")},
    }  # fmt: skip

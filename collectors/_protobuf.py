"""Protocol buffers' wire format, as much as reading somebody's messages takes: fields by number, and records of a stream.

Pure, and bounded: whatever the bytes are, these functions return or raise ``DataError`` with the position. Source: the
format's public description (protobuf.dev, Encoding).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from melt_stream.errors import DataError

Value = int | bytes
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10
"""Bytes of 64 bits, 7 a byte."""
LARGEST = 4 << 20
"""Bytes of one record of a stream; perfetto's own limit of a packet is of that order."""


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Yield each field's number and value: whole numbers of varints and of fixed widths (unsigned), else its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise DataError(f"byte {at - 1} of a message: expected a field's number from 1 on, got 0")
        value: Value
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind in {FIXED64, FIXED32, BYTES}:
            start = at
            length = 8 if kind == FIXED64 else 4
            if kind == BYTES:
                length, start = _varint(data, at)
            if length > len(data) - start:
                raise DataError(
                    f"byte {start} of a message: expected {length} bytes of field {number}, got {len(data) - start}"
                )
            piece, at = data[start : start + length], start + length
            value = piece if kind == BYTES else int.from_bytes(piece, "little")
        else:
            raise DataError(
                f"byte {at - 1} of a message: expected a wire type of 0, 1, 2 or 5, got {kind} for field {number}"
            )
        yield number, value


def signed(value: Value) -> int:
    """Return an int64 that came as a varint. Raises ``DataError`` where bytes stand in its place."""
    if isinstance(value, bytes):
        raise DataError(f"expected a whole number, got {len(value)} bytes: another version of this message?")
    return value - (1 << 64) if value >> 63 else value


def unsigned(value: Value) -> int:
    """Return a whole number that is not negative as an int64 either. Raises ``DataError`` for anything else."""
    if (number := signed(value)) < 0:
        raise DataError(f"expected a whole number below 2^63, got {value!r}")
    return number


def float32(value: Value) -> float:
    """Return a float that came as four bytes."""
    return float(struct.unpack("<f", struct.pack("<I", unsigned(value) & 0xFFFFFFFF))[0])


def message(value: Value) -> bytes:
    """Return the bytes of a message, or of a text. Raises ``DataError`` where a number stands in its place."""
    if not isinstance(value, bytes):
        raise DataError(f"expected a message, got the number {value}: another version of this message?")
    return value


def text(value: Value) -> str:
    """Return a text."""
    return message(value).decode(errors="replace")


@dataclass
class Records:
    """A stream of records, each field ``number`` of one endless message, cut as it comes."""

    number: int = 1
    at: int = 0
    """How many bytes were taken."""
    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the records that are whole by now. Raises ``DataError`` for what is none."""
        self._rest += data
        place = 0
        try:
            while (found := self._head(place)) is not None:
                start, length = found
                if start + length > len(self._rest):
                    break
                yield self._rest[start : start + length]
                place = start + length
        finally:
            self._rest = self._rest[place:]
            self.at += place

    @property
    def unfinished(self) -> int:
        """Bytes of a record that did not come whole."""
        return len(self._rest)

    def _head(self, place: int) -> tuple[int, int] | None:
        """Return where the next record's content begins, and its length; None where not enough has come."""
        rest = self._rest[place : place + 1 + LONGEST_VARINT]
        if not rest:
            return None
        if rest[0] != self.number << 3 | BYTES:
            raise DataError(
                f"byte {self.at + place}: expected a record ({self.number << 3 | BYTES:#04x}), got {rest[0]:#04x}"
            )
        if all(byte & 0x80 for byte in rest[1:]) and len(rest) <= LONGEST_VARINT:
            return None
        length, start = _varint(rest, 1)
        if length > LARGEST:
            raise DataError(
                f"byte {self.at + place}: expected a record of at most {LARGEST} bytes, got {length}"
            )
        return place + start, length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    for count, byte in enumerate(data[at : at + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * count)
        if not byte & 0x80:
            if value >> 64:
                break
            return value, at + count + 1
    what = "its end" if len(data) - at < LONGEST_VARINT else "more than 64 bits"
    raise DataError(f"byte {at}: expected a number in base 128, got {what}")

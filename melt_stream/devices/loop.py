"""What the loop that samples files on a device says (``programs`` are its texts, ``runner`` what runs them). Pure: bytes to samples.

It reads the files and waits, on its stdin, for commands or for the next slot of an absolute grid. A line each, and after ``S`` as many
bytes of text as the lengths tell (-1: unreadable)::

    S SLOT BEFORE AFTER LENGTH ...      a sample; times are seconds of the device's clock
    C NUMBER TIME                       the answer to "clock NUMBER"
    E                                   the end; what the shell's ``times`` says follows
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.errors import DeviceError

HEADER = 4096
"""Bytes in which a line must end."""
LARGEST = 1 << 20
"""Bytes of one file."""
TIME = re.compile(rb"(\d+)[.,](\d{6})")


class Sample(NamedTuple):
    """What was in the files, between two looks at the device's clock, us."""

    slot: int
    before: int
    after: int
    texts: list[str | None]


class Shown(NamedTuple):
    """The device's clock, us, after it had read our request of this number."""

    number: int
    at: int


class Ended(NamedTuple):
    """The loop ended by itself."""

    cpu_s: float | None
    """What it has taken of a core, with the processes that it started, if it says so."""


Said = Sample | Shown | Ended


@dataclass
class Parser:
    """Takes what the loop says, in pieces of any size. Raises ``DeviceError`` for what it cannot have said."""

    files: int
    resolution: int = 1
    """A tick of the device's clock, us: it may be later than it shows by so much less one."""
    _rest: bytes = field(default=b"", init=False)
    _ended: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> Iterator[Said]:
        """Yield what is complete."""
        self._rest += data
        while not self._ended and (end := self._rest.find(b"\n")) >= 0:
            words = self._rest[:end].split(b" ")
            match words[0], len(words):
                case b"S", n if n == 4 + self.files:
                    slot, before = self._number(words[1]), self._time(words[2])
                    after = self._time(words[3]) + self.resolution - 1
                    lengths = [self._number(word) for word in words[4:]]
                    stop = end + 1 + sum(max(0, length) for length in lengths)
                    if max(lengths, default=0) > LARGEST:
                        raise self._wrong(self._rest[:end])
                    if len(self._rest) < stop:
                        return
                    yield Sample(slot, before, after, self._texts(end + 1, lengths))
                    self._rest = self._rest[stop:]
                case b"C", 3:
                    yield Shown(self._number(words[1]), self._time(words[2]))
                    self._rest = self._rest[end + 1 :]
                case b"E", 1:
                    self._ended, self._rest = True, self._rest[end + 1 :]
                case _:
                    raise self._wrong(self._rest[:end])
        if not self._ended and len(self._rest) > HEADER and b"\n" not in self._rest[:HEADER]:
            raise self._wrong(self._rest)

    def finish(self) -> Ended | None:
        """After the end of output: whether the loop ended by itself, and what it cost."""
        if not self._ended:
            return None
        spent = re.findall(rb"(\d+)m(\d+(?:\.\d+)?)s", self._rest)
        return Ended(math.fsum(60 * int(m) + float(s) for m, s in spent) if spent else None)

    def _texts(self, at: int, lengths: list[int]) -> list[str | None]:
        texts: list[str | None] = []
        for length in lengths:
            if length < 0:
                texts.append(None)
                continue
            texts.append(self._rest[at : at + length].decode(errors="replace"))
            at += length
        return texts

    def _number(self, word: bytes) -> int:
        try:
            return int(word)
        except ValueError:
            raise self._wrong(word) from None

    def _time(self, word: bytes) -> int:
        if (found := TIME.fullmatch(word)) is None:
            raise self._wrong(word)
        return int(found[1]) * 1_000_000 + int(found[2])

    def _wrong(self, text: bytes) -> DeviceError:
        return DeviceError(
            f"expected a sample of {self.files} files, a clock or the end from the loop on the device, got {text[:120]!r}"
        )

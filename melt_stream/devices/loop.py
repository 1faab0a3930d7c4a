"""The loop that samples files on a device, and what it says. Pure: a program's text, and bytes to samples.

It needs a shell with EPOCHREALTIME and a ``read`` that waits for fractions of a second: mksh (Android's) or bash 5. No process is
started for a sample: the shell itself reads the files and waits, on its stdin, for commands or for the next slot of an absolute grid.

What it says, a line each, and after ``S`` as many bytes of text as the lengths tell (-1: unreadable)::

    S SLOT BEFORE AFTER LENGTH ...      a sample; times are seconds of the device's wall clock
    C NUMBER TIME                       the answer to "clock NUMBER"
    E                                   the end; what the shell's ``times`` says follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.devices.channel import quoted
from melt_stream.errors import DeviceError

SHELLS = ("sh", "bash", "mksh")
"""Tried in this order."""
_CAN = '[ -n "$EPOCHREALTIME" ] && { read -rt 0.001 x </dev/null; [ $? -le 1 ]; }'
_PROGRAM = r"""
p=$1 j=$2; shift 2
if [ -n "$KSH_VERSION" ]; then set +U; put() { print -rn -- "$1"; }; else put() { printf %s "$1"; }; fi
k=0 o=0 d=${EPOCHREALTIME/./}
n='
'
while :; do
    a=$EPOCHREALTIME l= b=
    for f; do
        v=
        if { IFS= read -rd '' v; :; } 2>/dev/null <"$f"; then l="$l ${#v}" b="$b$v"; else l="$l -1"; fi
    done
    z=$EPOCHREALTIME
    put "S $k $a $z$l$n$b"
    k=$((k + 1)) d=$((d + p)) t=${EPOCHREALTIME/./}
    w=$((d - t))
    if [ $w -lt 0 ]; then m=$((-w / p + 1)) && k=$((k + m)) && d=$((d + m * p)); fi
    [ "$j" = 1 ] && o=$((RANDOM * (p / 64) / 512))
    w=$((d + o - t))
    while :; do
        q=$w
        if [ $q -gt 900000 ]; then q=900000; fi
        if [ $q -lt 1 ]; then q=1; fi
        q=$((1000000 + q)) c=
        IFS= read -rt "0.${q#1}" c
        case $?,$c in
        0,clock\ *) put "C ${c#clock } $EPOCHREALTIME$n" ;;
        0,stop | 1,*) break 2 ;;
        esac
        t=${EPOCHREALTIME/./}
        w=$((d + o - t))
        [ $w -gt 0 ] || break
    done
done
put "E$n"
times
"""
PROBE = 'for s in {shells}; do "$s" -c \'{can}\' 2>/dev/null && echo "$s" && exit; done'
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
    """What the shell has taken of a core, if it says so."""


Said = Sample | Shown | Ended


def probe() -> str:
    """Return a line for any shell that prints the name of the first one that can run the loop; nothing: there is none."""
    return PROBE.format(shells=" ".join(SHELLS), can=_CAN)


def program(shell: str, paths: Sequence[str], hz: float, *, jitter: bool) -> str:
    """Return the line that runs the loop in ``shell``."""
    words = [shell, "-c", _PROGRAM, "loop", str(round(1e6 / hz)), str(int(jitter)), *paths]
    return f"LC_ALL=C exec {quoted(words)}"


@dataclass
class Parser:
    """Takes what the loop says, in pieces of any size. Raises ``DeviceError`` for what it cannot have said."""

    files: int
    _rest: bytes = field(default=b"", init=False)
    _ended: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> Iterator[Said]:
        """Yield what is complete."""
        self._rest += data
        while not self._ended and (end := self._rest.find(b"\n")) >= 0:
            words = self._rest[:end].split(b" ")
            match words[0], len(words):
                case b"S", n if n == 4 + self.files:
                    slot, before, after = self._number(words[1]), self._time(words[2]), self._time(words[3])
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
        found = re.match(rb"(\d+)m([\d.]+)s (\d+)m([\d.]+)s", self._rest)
        if found is None:
            return Ended(None)
        minutes, seconds = int(found[1]) + int(found[3]), float(found[2]) + float(found[4])
        return Ended(60 * minutes + seconds)

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

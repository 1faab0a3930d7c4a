"""Following a file on a device, or a phone's log: its lines as they are written, by the device's clock."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from melt_stream.devices.place import Line, Place
from melt_stream.outlet import Outlet

LOOK_S = 0.1
"""``tail`` looks for a file that is not there, or was exchanged, so often."""
_TAIL = f"""
n=1
if [ "$2" != whole ] && [ -e "$1" ]; then n=$(($(wc -c <"$1") + 1)); fi
exec tail -c +$n -s {LOOK_S} -F -- "$1" 2>&1
"""
"""toybox's ``tail -n 0`` prints the last lines, so that the end is counted in bytes."""
_TOLD = re.compile(
    r"tail: (?:.*(?P<cut>truncated)|.*(?P<new>has been replaced|following new file)|.*(?P<denied>Permission denied|Is a directory)|"
    r".*(?:cannot open|No such file|inaccessible|has appeared)).*",
)
_LOGCAT = re.compile(r"\s*(\d{1,10})\.(\d{3,9})\s+\d+\s+\d+ ([VDIWEFS]) (.*?)\s*: (.*)", re.DOTALL)


class Happened(NamedTuple):
    """What became of a file that is followed, in the place of a line."""

    tick: int
    """When it was seen, by ``Place.clock``."""
    arrival: int
    what: str
    """Why lines may be missing here."""


class Logged(NamedTuple):
    """A line of a phone's log."""

    ns: int
    """When it was written, ns since 1970 by the phone's wall clock."""
    resolution_ns: int
    level: str
    tag: str
    text: str


async def followed(
    place: Place, out: Outlet, path: str, *, whole: bool = False
) -> AsyncGenerator[Line | Happened, None]:
    """Yield the lines of a file as they are written, from now on, or all of them, until we leave.

    A file that is not there yet is waited for; where it is exchanged (a log that rotates), the new one is read from its
    beginning; that, and one that is cut short, may lose lines: ``Happened``. A line without its end is held back.
    Use it with ``contextlib.aclosing``. Raises ``Gone`` where the link ends, ``DeviceError`` where there is no ``tail``.
    """
    command = ["sh", "-c", _TAIL, "follow", path, "whole" if whole else "end"]
    some = False
    async with aclosing(place.lines(out, command)) as lines:
        async for line in lines:
            if (found := _TOLD.fullmatch(line.text)) is None:
                if line.text:
                    some = True
                    yield line
            elif what := _what(path, line.text, found, some):
                yield Happened(line.tick, line.arrival, what)


def _what(path: str, said: str, found: re.Match[str], some: bool) -> str:
    """Return why lines may be missing; nothing, where none are. ``some`` came before."""
    if found["cut"]:
        return f"{path} was cut short: what was not read yet is lost"
    if found["new"] and some:
        return f"{path} was exchanged: what was written to the old one after that is not read"
    return said.removeprefix("tail: ") if found["denied"] else ""


def logcat(filters: Sequence[str] = ()) -> list[str]:
    """Return the command that prints a phone's log from now on, with its own stamps; ``filters`` as for logcat (``TAG:I``)."""
    silent = ["-s", *filters] if filters else []
    return ["logcat", "-v", "epoch", "-v", "nsec", "-T", "1", *silent]


def logged(text: str) -> Logged | None:
    """Read a line of ``logcat -v epoch -v nsec``; None where it is none (``--------- beginning of main``)."""
    if (found := _LOGCAT.fullmatch(text)) is None:
        return None
    seconds, fraction, level, tag, message = found.groups()
    ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
    return Logged(ns, 10 ** (9 - len(fraction)), level, tag, message)

"""A command on a device that keeps telling something, a line at a time: found, listened to, its holes told."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Self

import trio
from pydantic import PositiveFloat

from melt_stream.collector import Health
from melt_stream.devices import Done, Line, Place, run
from melt_stream.devices.local import Local
from melt_stream.errors import DeviceError, Transient
from melt_stream.hand import SLACK
from melt_stream.outlet import Outlet, Row
from melt_stream.stream import Stream

Rows = Iterable[tuple[Stream, Row]]


async def needed(place: Place, command: Sequence[str], what: str, cure: str) -> Done:
    """Run a command that succeeds only where ``what`` is there. Raises ``DeviceError`` that names the ``cure``, or ``Gone``."""
    done = await run(place.device, command)
    if done.status:
        said = done.complaints.rpartition("\n")[2][:200] or f"exit status {done.status}"
        raise DeviceError(f"{place.device.name}: expected {what}, got {said}; try: {cure}")
    return done


async def on_path(place: Place, program: str, cure: str) -> None:
    """Make sure that a program is there. Raises as :func:`needed`."""
    script = 'command -v "$1" >/dev/null || { echo "none on PATH ($PATH)" >&2; exit 1; }'
    await needed(place, ["sh", "-c", script, "sh", program], program, cure)


def here(program: str, cure: str) -> Health:
    """Tell whether this machine has a program."""
    if shutil.which(program) is None:
        return Health(False, f"no {program} on PATH", cure)
    return Health(True, f"command {program}")


@dataclass
class Telling:
    """Listens to ``command`` at ``place`` until cancelled.

    Rows are stamped by the device's clock when its shell had read their line. A line that is none, and more than three periods without
    one, are gaps. Raises ``Transient`` (alone or in a group) where no line comes for ``patience_s``, or the command ends after it had said something, ``DeviceError``
    where it fails before, ``Gone`` where the link ends.
    """

    place: Place
    out: Outlet
    command: Sequence[str]
    rows: Callable[[str], Rows | None]
    """What a line says: rows; nothing, where it says nothing; None where it is none of the command's."""
    what: str
    """What is expected of a line, for messages."""
    period_ns: float
    patience_s: float
    heard: float = field(default_factory=trio.current_time)
    """Trio's time of the last good line."""
    _last: int | None = None
    """Its tick."""
    _junk: int = 0
    """Lines since then that are none."""
    _first: str = ""
    """The first of them."""
    _streams: dict[str, Stream] = field(default_factory=dict)

    async def run(self) -> None:
        """Listen."""
        async with self.place.clocked(self.out) as epoch, trio.open_nursery() as nursery:
            self.heard = trio.current_time()
            nursery.start_soon(self._watch)
            await self._listen(epoch)
            raise Transient(f"{self._who}: expected it to go on, got its end")

    @property
    def _who(self) -> str:
        return f"{self.place.device.name}: {self.command[0]}"

    async def _watch(self) -> None:
        until = self.heard + self.patience_s
        while until > trio.current_time():
            await trio.sleep_until(until)
            until = self.heard + self.patience_s
        got = f"{self._junk} lines that are none, the first: {self._first!r}" if self._junk else "none"
        raise Transient(f"{self._who}: expected {self.what} within {self.patience_s:g} s, got {got}")

    async def _listen(self, epoch: int) -> None:
        try:
            async with aclosing(self.place.lines(self.out, self.command)) as lines:
                async for line in lines:
                    self._take(line, epoch)
        except DeviceError as exc:
            if isinstance(exc, Transient) or self._last is None:
                raise
            raise Transient(str(exc)) from exc  # it could, so it may again

    def _take(self, line: Line, epoch: int) -> None:
        if (rows := self.rows(line.text)) is None:
            self._first = self._first if self._junk else line.text[:80]
            self._junk += 1
            return
        if not (rows := list(rows)):
            return
        if self._last is not None:
            self._mind_gap(self._last, line.tick, epoch)
        for stream, row in rows:
            self._streams[stream.name] = stream
            self.out.row(stream, tick=line.tick, epoch=epoch, **row)
        self.heard, self._last = trio.current_time(), line.tick
        self._junk = 0

    def _mind_gap(self, last: int, tick: int, epoch: int) -> None:
        periods = (tick - last) * self.place.clock.tick_ns / self.period_ns
        lost = max(self._junk, round(periods) - 1 if periods > SLACK else 0)
        if not lost:
            return
        reason = (
            f"{self._junk} lines are none, the first: {self._first!r}"
            if self._junk
            else f"no line came for {periods:.1f} periods"
        )
        for stream in self._streams.values():
            self.out.gap(stream, last, max(last, tick), reason, lost=lost, epoch=epoch)


def _here() -> Place:
    """Return this machine as a place, for a command that no device is named for; its clock is ``local.realtime``."""
    return Place(Local("local"))


@dataclass
class Listener:
    """A collector that listens to a tool on the device that its entry of the recipe names, else on this machine."""

    _: KW_ONLY
    patience_s: PositiveFloat = 10.0
    """How long no line may come before the tool is started again; at least four intervals."""
    optional: bool = False
    """True where its failure does not end the run."""

    _place: Place = field(default_factory=_here, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the streams, which are on the clock of the place; once more where that has changed."""

    def on(self, place: Place) -> Self:
        """Return the collector that listens there."""
        there = replace(self)
        there._place = place
        there.__post_init__()
        return there

    async def listen(
        self,
        out: Outlet,
        command: Sequence[str],
        rows: Callable[[str], Rows | None],
        what: str,
        interval_ms: float,
    ) -> None:
        """Run ``Telling`` for a tool that was asked for a line every ``interval_ms``."""
        patience = max(self.patience_s, 4e-3 * interval_ms)
        await Telling(self._place, out, command, rows, what, interval_ms * 1e6, patience).run()

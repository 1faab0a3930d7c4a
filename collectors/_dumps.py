"""Asking one of Android's services by ``dumpsys``, at most once a second: each dump is stamped by the phone's own clock."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, NamedTuple, Self, TypeVar

from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.devices import Local, Place
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

T = TypeVar("T")
Stamp = dict[str, int]
"""A row's ``tick``, ``t_u`` and ``epoch``."""
BEGIN, END = "<<<dump", ">>>dump"
LARGEST = 1 << 20
"""Characters of one dump."""
PATIENCE = 10
"""Dumps in a row that are none, after which the collector gives up."""
_LOOP = f'p=$1; shift; while :; do echo; echo "{BEGIN}"; "$@" 2>&1; echo; echo "{END}"; sleep "$p"; done'
"""A service that is not there says so in words, and dumpsys' status is 0 on some phones: the text decides."""


class Dump(NamedTuple):
    """What a service said."""

    before: int
    """When it was asked, and when it had answered, by the place's clock."""
    after: int
    text: str

    @property
    def tick(self) -> int:
        """The middle."""
        return (self.before + self.after) // 2


@dataclass(frozen=True)
class Asking:
    """A service, and how to ask for it."""

    command: Sequence[str]
    """``dumpsys``, or what stands for it; the service's name comes after it."""
    service: str
    period_s: float
    expected: str = "what dumpsys prints on Android 10 or later"

    async def dumps(self, place: Place, out: Outlet) -> AsyncGenerator[Dump, None]:
        """Yield dumps until left. Use it with ``contextlib.aclosing``. Raises ``Gone`` where the link ends."""
        words = ["sh", "-c", _LOOP, "dumps", f"{self.period_s:g}", *self.command, self.service]
        async with aclosing(place.lines(out, words)) as lines:
            said: list[str] | None = None
            before, size = 0, 0
            async for line in lines:
                if line.text == BEGIN:
                    said, before, size = [], line.tick, 0
                elif said is not None and line.text == END:
                    yield Dump(before, max(line.tick, before), "\n".join(said))
                    said = None
                elif said is not None:
                    said.append(line.text)
                    size += len(line.text)
                    if size > LARGEST:
                        raise DeviceError(
                            f"{place.device.name}: {self.command[0]} {self.service}: expected up to {LARGEST} characters, got more"
                        )

    async def tell(
        self,
        place: Place,
        out: Outlet,
        streams: Sequence[Stream],
        read: Callable[[str], T | None],
        take: Callable[[T, Stamp], None],
    ) -> None:
        """Read dumps and hand them over with their stamps until cancelled; those that are none are gaps of ``streams``.

        Raises ``Gone`` where the link ends, ``DeviceError`` where the first is none, ``Transient`` where ten in a row are none.
        """  # fmt: skip
        async with place.clocked(out) as epoch, aclosing(self.dumps(place, out)) as dumps:
            bad, last = 0, None
            async for dump in dumps:
                if (said := read(dump.text)) is None:
                    bad += 1
                    if last is None or bad >= PATIENCE:
                        raise self._no_dump(place, dump.text, ever=last is not None)
                    continue
                if bad and last is not None:
                    for stream in streams:
                        out.gap(
                            stream, last, dump.tick, f"{self.command[0]} gave nothing", lost=bad, epoch=epoch
                        )
                bad, last = 0, dump.tick
                out.ready()
                half = (dump.after - dump.before + 1) / 2
                take(said, {"tick": dump.tick, "t_u": round(half * place.clock.tick_ns), "epoch": epoch})

    def _no_dump(self, place: Place, text: str, *, ever: bool) -> DeviceError:
        kind = Transient if ever else DeviceError
        said = " ".join(text.split())[:120] or "nothing"
        return kind(
            f"{place.device.name}: expected {self.expected}, got {said!r} from {self.command[0]} {self.service}"
        )


def here() -> Place:
    """Where a collector that no recipe has placed runs its commands: this machine, which may be the phone itself."""
    return Place(Local("here"))


def on_path(program: str) -> Health:
    """Say whether one of Android's programs is on this machine; asks no phone."""
    if (found := shutil.which(program)) is not None:
        return Health(True, found)
    return Health(
        False, f"there is no {program} here", 'a phone: [device.NAME] adb = "serial", and device = "NAME"'
    )


@dataclass
class Asked:
    """The fields of a collector that asks the phone now and then."""

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(1)] = 1.0
    """Times a second."""
    optional: bool = False
    """True where its failure does not end the run."""
    place: Place = field(default_factory=here, init=False)
    streams: tuple[Stream, ...] = field(default=(), init=False, repr=False)
    """Those that it fills, once it runs: they are on the clock of its place."""

    def on(self, place: Place) -> Self:
        """The same, of the phone at ``place``."""
        made = replace(self)
        made.place = place
        return made

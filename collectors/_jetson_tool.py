"""What a Jetson's tools that tell of the whole board have in common: tegrastats and jtop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, ClassVar

from annotated_types import Ge

from melt_stream.collectors._jetson_rails import TOTAL, parts_of_total
from melt_stream.collectors._jetson_said import Said, Streams, rails_of
from melt_stream.collectors._telling import Listener, Rows
from melt_stream.devices import Place
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream


@dataclass
class JetsonTool(Listener, ABC):
    """Listens to a tool on the board that a recipe's entry names, else on this machine."""

    _: KW_ONLY
    interval_ms: Annotated[float, Ge(1)] = 1000.0
    """The tool is asked for a line so often; it takes some percent longer."""
    total: tuple[str, ...] | None = None
    """Rails whose sum is the board's power, as rail ``total``; None: what is known of the board."""

    what: ClassVar[str]
    """What a line is."""
    source: ClassVar[str]
    """Where the numbers are from."""
    _names: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """Of the rails declared."""
    _parts: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._made = Streams(self.interval_ms * 1e6, self._place.clock)
        self.streams: tuple[Stream, ...] = self._made.all

    @abstractmethod
    def command(self) -> list[str]:
        """Return the tool and its arguments."""

    @abstractmethod
    async def find(self, place: Place) -> None:
        """Make sure that the tool is there. Raises ``DeviceError`` that says what to install."""

    @abstractmethod
    def said(self, text: str, out: Outlet) -> Said | None:
        """Return what a line says; None where it is none of the tool's."""

    async def collect(self, out: Outlet) -> None:
        """Listen until cancelled; raises as ``Telling`` does."""
        await self.find(self._place)

        def rows(text: str) -> Rows | None:
            found = self.said(text, out)
            return None if found is None else self._rows(found, out)

        await self.listen(out, self.command(), rows, self.what, self.interval_ms)

    def _rows(self, said: Said, out: Outlet) -> Rows:
        if new := said.watts.keys() - self._names:
            self._declare(said, new, out)
        return self._made.rows(said, self._parts or ())

    def _declare(self, said: Said, new: Set[str], out: Outlet) -> None:
        self._names |= said.watts.keys()
        if self._parts is None:
            self._parts = parts_of_total(said.watts, self.total, f"{type(self).__name__}.total")
            new = {*new, TOTAL}
        for rail in rails_of(sorted(self._names), self._parts, self.source):
            if rail.name in new:
                out.rail(self._made.power, rail)

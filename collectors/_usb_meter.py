"""A USB meter on a serial port, asked for its newest values at a rate: what those of Ruideng have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar, NamedTuple

import trio
from pydantic import PositiveFloat

from melt_stream.collector import Health
from melt_stream.collectors import _serial
from melt_stream.collectors._asked_serial import AskedPort
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.poller import Poller
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Stream

USUAL_VOLTS = 5.0
"""What a USB port has at least when something draws power."""


class Told(NamedTuple):
    """What one answer tells; made by pure functions."""

    meter: str
    """Who answered; another one in the same run is an error."""
    row: Row
    facts: Mapping[str, Any]


class Accuracy(NamedTuple):
    """As data sheets of such meters have it: parts of the reading, and digits of the display; limits."""

    volts_gain: float
    amps_gain: float
    amps_digits: float
    """In A: the digits times the step."""
    watts_step: float
    source: str


@dataclass
class UsbMeter(ABC):
    """The fields and the life of a meter that answers whenever it is asked; its values are its newest, of unknown age.

    Raises ``DeviceError`` where another program has the port, or another instrument answers. What harms one answer
    (damage, silence, a pulled cable) is a gap; before the next, the line is cleared, so that no late answer is taken for it.
    """

    port: str
    """``/dev/ttyACM0``, ``/dev/rfcomm0`` or the like."""
    _: KW_ONLY
    hz: float = 5.0
    jitter: bool | None = None
    """Ask at a random moment of each slot, so that the grid cannot beat against the load; by default it does."""
    timeout_s: PositiveFloat = 1.0
    """How long an answer may take."""
    boundary: Boundary = "dc_in"
    """Where in the device's supply the meter is."""
    rail: str = "usb"
    optional: bool = False

    stream: ClassVar[Stream]
    what: ClassVar[str]
    """What messages call it."""
    baud: ClassVar[int]
    request: ClassVar[bytes]
    size: ClassVar[int]
    """Bytes of an answer."""

    @abstractmethod
    def clear(self, port: AskedPort) -> None:
        """Make sure that nothing asked before is answered later."""

    @abstractmethod
    def told(self, answer: bytes) -> Told:
        """Read an answer. Raises ``Transient`` for damage, ``DeviceError`` where it is no such meter's."""

    @abstractmethod
    def accuracy(self, told: Told) -> Accuracy:
        """How well this one measures."""

    def check(self) -> Health:
        """Whether the port is there and may be opened; nobody is asked."""
        return _serial.health(self.what, (), self.port)

    async def collect(self, out: Outlet) -> None:
        """Poll until cancelled."""
        asked = _Polled(self, hz=self.hz, jitter=self.jitter)
        try:
            await trio.to_thread.run_sync(asked.open, abandon_on_cancel=True)
            await asked.collect(out)
        finally:
            asked.port.end()


@dataclass
class _Polled(Poller):
    """The meter, as the poller's thread asks it."""

    meter: UsbMeter
    port: AskedPort = field(init=False)
    _first: Told | None = field(default=None, init=False)
    _last: Row = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.stream = self.meter.stream  # type: ignore[misc] # one class for all meters
        self.port = AskedPort(self.meter.port, self.meter.baud, self.meter.timeout_s)

    def open(self) -> None:
        """Open the port and clear the line, which may take as long as some answers."""
        try:
            self.port.open()
            self.meter.clear(self.port)
        except DeviceError:
            self.port.close()
            raise

    def read(self) -> Row:
        if not self.port.is_open:
            self.open()
            raise Transient(
                f"{self.port.path}: opened anew"
            )  # asked in the next slot, so that its time is its own
        try:
            told = self._told(self.port.ask(self.meter.request, self.meter.size))
        except DeviceError:
            self.port.close()
            raise
        if self._first is None:
            self._first = told
        elif told.meter != self._first.meter:
            self.port.close()
            raise DeviceError(
                f"{self.port.path}: expected {self._first.meter}, got {told.meter}: another meter"
            )
        repeat, self._last = told.row == self._last, told.row
        return {**told.row, "repeat": repeat}

    def _told(self, answer: bytes) -> Told:
        try:
            return self.meter.told(answer)
        except DeviceError as exc:
            # Once it has been such a meter, what is none is noise on the line.
            kind = DeviceError if self._first is None and not isinstance(exc, Transient) else Transient
            raise kind(f"{self.port.path}: {exc}") from exc

    def rails(self) -> list[tuple[Stream, Rail]]:
        assert self._first is not None
        known, volts = self.meter.accuracy(self._first), max(self._first.row["volts"], USUAL_VOLTS)
        third = math.sqrt(3)
        return [(self.stream, Rail(
            self.meter.rail, self.meter.boundary, "gauge", gain=math.hypot(known.volts_gain, known.amps_gain) / third,
            offset=known.amps_digits * volts / third, resolution=known.watts_step, instrument="meter",
            source=known.source,
        ))]  # fmt: skip

    def facts(self) -> Mapping[str, Any]:
        assert self._first is not None
        return {"meter": self._first.meter, **self._first.facts}

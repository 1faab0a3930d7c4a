"""Any meter that speaks SCPI, over a raw TCP socket or a serial port; some have presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import serial
from annotated_types import Gt, Le
from pydantic import PositiveFloat, PositiveInt

from melt_stream.clock import monotonic
from melt_stream.collector import Health
from melt_stream.collectors import _serial
from melt_stream.collectors._described import SKIPPED, Columns, Described, Measure, Rails, measure, specs
from melt_stream.collectors._line_sources import host_and_port
from melt_stream.collectors._scpi_link import Link, SerialWire, TcpWire, Wire, said
from melt_stream.collectors._scpi_presets import PRESETS
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Outlet, Row
from melt_stream.poller import Poller
from melt_stream.rail import Rail
from melt_stream.stream import Stream

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
NOTHING = 9.9e37
"""SCPI 1999, 7.2.1: 9.9E37 is infinity, 9.91E37 is not a number; instruments answer with them beyond a range."""
ABSENT = frozenset({"nan", "inf", "-inf", "+inf", ""})
USUAL_PORT = 5025


@dataclass
class Scpi:
    """Ask an instrument for its values at a rate, as a preset or ``query``, ``columns`` and ``rails`` describe.

    What a preset says can be said otherwise. The error queue is read after the set-up, after
    an answer that failed, and every ``errors_every_s``; after a failure the connection is made anew, so that a late
    answer is never taken for another's.
    """

    address: str
    """``host`` or ``host:port`` of a raw socket, 5025 by default; or a serial port, such as ``/dev/ttyUSB0``."""
    _: KW_ONLY
    baud: PositiveInt = 9600
    preset: str = ""
    """One of keysight_34465a, rs_ngm, rs_ngu, yokogawa_wt310."""
    setup: list[str] | None = None
    """Commands sent at the start, and after each failure."""
    query: list[str] = field(default_factory=list)
    """Queries of one sample, in their order; an answer holds one or more values with commas between."""
    columns: Columns = field(default_factory=dict)
    """Name and unit of each value, in the order of the answers; unit ``-`` for one that is not kept."""
    rails: Rails = field(default_factory=dict)
    hz: Annotated[float, Gt(0), Le(20_000)] | None = None
    """Samples a second; by default the preset's, or 10."""
    jitter: bool | None = None
    """Ask at a random moment of each slot; by default for gauges."""
    timeout_s: PositiveFloat = 1.0
    """How long an answer may take."""
    errors_every_s: PositiveFloat = 10.0
    idn: str = ""
    """Text that ``*IDN?`` must contain, so that no other instrument is taken for this one."""
    optional: bool = False

    def __post_init__(self) -> None:
        if self.preset and self.preset not in PRESETS:
            raise ConfigError(f"preset: expected one of {', '.join(sorted(PRESETS))}, got {self.preset!r}")
        usual = PRESETS.get(self.preset)
        if usual is not None:
            self.setup = list(usual.setup) if self.setup is None else self.setup
            self.query, self.columns = self.query or list(usual.query), self.columns or usual.columns
            self.rails, self.hz = self.rails or usual.rails, self.hz or usual.hz
        self.hz = self.hz or 10.0
        if not self.query or not self.columns:
            raise ConfigError("expected a preset, or query and columns")
        if wrong := [
            text for text in [*self.query, *(self.setup or [])] if not text.isascii() or "\n" in text
        ]:
            raise ConfigError(f"expected a command in ASCII on one line, got {wrong[0]!r}")
        if not all("?" in text for text in self.query):
            raise ConfigError(f"query: expected queries, which have a '?', got {self.query}")
        if not self.is_serial:
            host_and_port(self.address, USUAL_PORT)
        kept = {name: spec for name, spec in specs(self.columns).items() if spec.unit != SKIPPED}
        self.described = Described(kept, self.rails)
        self.streams = self.described.streams

    @staticmethod
    def example() -> dict[str, Any]:
        config = {"address": "{host}:{tcp_port}", "preset": "rs_ngu", "hz": 50.0}
        return {"kind": "emulator", "emulator": "scpi", "config": config}

    def check(self) -> Health:
        """Tell where it is expected; asks nobody."""
        if self.is_serial:
            return _serial.health("SCPI instrument", (), self.address)
        return Health(True, f"expected at {self.address}; not asked")

    @property
    def is_serial(self) -> bool:
        """Whether the address is a serial port's path."""
        return "/" in self.address

    async def collect(self, out: Outlet) -> None:
        """Poll until cancelled."""
        asked = _Asked(self, hz=self.hz or 10.0, jitter=self.jitter)
        try:
            await asked.collect(out)
        finally:
            asked.close()

    def wire(self) -> Wire:
        """Connect. Raises ``Transient`` where nobody answers."""
        try:
            if self.is_serial:
                return SerialWire(self.address, self.baud, self.timeout_s)
            return TcpWire(*host_and_port(self.address, USUAL_PORT), self.timeout_s)
        except (OSError, serial.SerialException) as exc:
            raise Transient(
                f"{self.address}: expected an instrument that answers, got {exc}; is it on?"
            ) from exc


@dataclass
class _Asked(Poller):
    """The instrument, as the poller's thread asks it."""

    scpi: Scpi
    _link: Link | None = field(default=None, init=False)
    _identity: str = field(default="", init=False)
    _look_at: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._measures: list[tuple[str, Measure | None]] = [
            (name, measure(spec) if spec.unit != SKIPPED else None)
            for name, spec in specs(self.scpi.columns).items()
        ]

    def read(self) -> Iterable[Row | tuple[Stream, Row]]:
        link = self._link or self._open()
        try:
            answers = [link.query(text) for text in self.scpi.query]
            values = self._values(answers, link)
            if monotonic() >= self._look_at:
                self._check_queue(link)
        except Transient as exc:
            self.close()
            raise self._explained(link, exc) from exc
        return list(self.scpi.described.rows(values))

    def rails(self) -> list[tuple[Stream, Rail]]:
        return self.scpi.described.declared()

    def facts(self) -> Mapping[str, Any]:
        return {"idn": self._identity, "setup": self.scpi.setup or [], "query": self.scpi.query}

    def end(self) -> None:
        """A read that was given up may have connected since."""
        self.close()

    def close(self) -> None:
        """End the connection; also under a read that waits."""
        link, self._link = self._link, None
        if link is not None:
            link.wire.close()

    def _values(self, answers: list[str], link: Link) -> dict[str, float | str | None]:
        texts = [text.strip() for answer in answers for text in re.split("[,;]", answer)]
        if len(texts) != len(self._measures):
            raise Transient(
                f"{link.name}: expected {len(self._measures)} values, got {len(texts)}: {answers}"
            )
        return {
            name: _number(text, convert, link.name)
            for text, (name, convert) in zip(texts, self._measures, strict=True)
            if convert is not None
        }

    def _open(self) -> Link:
        """Connect, see that it is the same instrument, set it up, and read what it thinks of that."""
        link = Link(self.scpi.wire(), self.scpi.address, self.scpi.timeout_s)
        self._link = link
        try:
            identity = self._identify(link)
            link.write("*CLS")  # what happened before us is none of ours
            for command in self.scpi.setup or []:
                link.write(command)
            errors = link.errors()
        except Transient:
            self.close()
            raise
        if errors:
            self.close()
            raise DeviceError(
                f"{link.name} ({identity}): expected no error after the set-up {self.scpi.setup}, got {said(errors)}"
            )
        self._identity = identity
        self._look_at = monotonic() + round(self.scpi.errors_every_s * 1e9)
        return link

    def _identify(self, link: Link) -> str:
        """Ask who it is; on a serial port older answers may come first."""
        identity = link.query("*IDN?")
        for _ in range(8):
            if identity.count(",") >= 2 and (not self._identity or identity == self._identity):
                break
            if not self.scpi.is_serial:
                raise DeviceError(
                    f"{link.name}: expected {self._identity or 'an identity with commas'} from *IDN?, got {identity!r}"
                )
            identity = link.answer("*IDN?")
        if self.scpi.idn not in identity:
            raise DeviceError(f"{link.name}: expected *IDN? with {self.scpi.idn!r}, got {identity!r}")
        return identity

    def _check_queue(self, link: Link) -> None:
        self._look_at = monotonic() + round(self.scpi.errors_every_s * 1e9)
        if errors := link.errors():
            raise Transient(f"{link.name}: expected no error, got {said(errors)}")

    def _explained(self, broken: Link, why: Transient) -> Transient:
        """Ask, on a new connection, whether the instrument knows why; it is then closed, since nothing is set up."""
        try:
            link = Link(self.scpi.wire(), broken.name, self.scpi.timeout_s)
        except Transient:
            return why
        self._link = link
        try:
            self._identify(link)
            errors = link.errors()
        except DeviceError:
            return why
        finally:
            self.close()
        return Transient(f"{why}; the instrument reports {said(errors)}") if errors else why


def _number(text: str, convert: Measure, name: str) -> float | None:
    if text.lower() in ABSENT:
        return None
    if NUMBER.fullmatch(text) is None:
        raise Transient(f"{name}: expected a number, got {text[:40]!r}")
    number = float(text)
    if abs(number) >= NOTHING:
        return None
    try:
        return convert.stored(number)
    except ValueError as exc:
        raise Transient(f"{name}: expected a value in range, got {exc}") from exc

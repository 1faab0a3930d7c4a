"""What a Jetson's tools say of the board at one moment, and the streams that hold it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from melt_stream.clock import HOST, Clock
from melt_stream.collectors._jetson_rails import TOTAL, parent, whole, with_total
from melt_stream.outlet import Row
from melt_stream.rail import Boundary, Rail
from melt_stream.stream import Stream
from melt_stream.units import BYTE, CELSIUS, HZ, PERCENT, A, V, W

STATE = {
    "cpu_load": PERCENT, "gpu_load": PERCENT, "emc_load": PERCENT, "vic_load": PERCENT, "cpu_hz": HZ, "gpu_hz": HZ, "emc_hz": HZ,
    "vic_hz": HZ, "ram_used": BYTE, "swap_used": BYTE,
}  # fmt: skip
"""Loads and clocks of the CPU are means over the cores that are on."""


@dataclass
class Said:
    """What was said; what was not is left out, or None."""

    date_s: int | None = None
    """Since 1970, if local time were UTC; whole seconds."""
    watts: dict[str, float] = field(default_factory=dict)
    volts: dict[str, float] = field(default_factory=dict)
    amps: dict[str, float] = field(default_factory=dict)
    celsius: dict[str, float] = field(default_factory=dict)
    state: dict[str, float] = field(default_factory=dict)
    """By the names of :data:`STATE`."""
    cores: dict[int, tuple[float | None, float | None]] = field(default_factory=dict)
    """Load (%) and clock (Hz) of each core that is on."""
    fans: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Drive (%) and speed (rpm)."""
    mode: str | None = None
    """The power mode that nvpmodel set, by name."""

    def settle(self) -> None:
        """Fill in the CPU's means from its cores."""
        for place, name in enumerate(("cpu_load", "cpu_hz")):
            if known := [value for core in self.cores.values() if (value := core[place]) is not None]:
                self.state[name] = sum(known) / len(known)


class Streams:
    """The streams of one tool's lines."""

    def __init__(self, period_ns: float | None, clock: Clock = HOST) -> None:
        def polled(stream: str, **columns: Any) -> Stream:
            return Stream(stream, clock=clock, period_ns=period_ns, **columns).as_polled()

        self.power = polled("power", rail=str, watts=W, volts=V, amps=A)
        self.thermal = polled("thermal", zone=str, celsius=CELSIUS)
        self.state = polled("state", date=int, **STATE)
        self.cores = polled("cores", core=int, load=PERCENT, frequency=HZ)
        self.fan = polled("fan", fan=str, pwm=PERCENT, rpm=float)
        self.power_mode = polled("power_mode", mode=int, name=str)
        self._mode: str | None = None

    @property
    def all(self) -> tuple[Stream, ...]:
        """All of them."""
        return self.power, self.thermal, self.state, self.cores, self.fan, self.power_mode

    def rows(self, said: Said, totals: tuple[str, ...]) -> Iterator[tuple[Stream, Row]]:
        """Return the rows of what was said; ``totals`` are the rails whose sum is the board's power."""
        for rail, watts in with_total(said.watts, totals).items():
            electric = {"volts": said.volts.get(rail), "amps": said.amps.get(rail)}
            yield self.power, {"rail": rail, "watts": watts, **electric}
        for zone, celsius in said.celsius.items():
            yield self.thermal, {"zone": zone, "celsius": celsius}
        if said.state or said.date_s is not None:
            yield self.state, {"date": said.date_s, **said.state}
        for core, (load, frequency) in said.cores.items():
            yield self.cores, {"core": core, "load": load, "frequency": frequency}
        for fan, (pwm, rpm) in said.fans.items():
            yield self.fan, {"fan": fan, "pwm": pwm, "rpm": rpm}
        if said.mode is not None and said.mode != self._mode:
            self._mode = said.mode
            yield self.power_mode, {"mode": None, "name": said.mode}


def rails_of(names: Collection[str], totals: tuple[str, ...], source: str) -> Iterator[Rail]:
    """Return the rails of these names, and of their total."""
    board = whole(names, totals)
    for name in [*names, *([TOTAL] if totals else [])]:
        boundary: Boundary = "board" if name == board else "rail"
        lies_in = parent(name, names, board)
        yield Rail(name, boundary, "gauge", parent=lies_in, instrument="gauge", source=source)

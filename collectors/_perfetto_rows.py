"""From what a trace of perfetto's says to rows on the phone's CLOCK_BOOTTIME."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from melt_stream.clock import Clock, Reading
from melt_stream.collectors import _dumpsys
from melt_stream.collectors._gauge import GaugeUnit, guess_unit, sign_of, volts_of
from melt_stream.collectors._gauge import Reading as Gauge
from melt_stream.collectors._perfetto import Battery, Clocks, Dropped, Lost, Rails, Said
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import PERCENT, A, Unit, V

CLOCK = Clock("boottime", tick_ns=1e6)
"""The phone's CLOCK_BOOTTIME in ms, by which its chips' counters are stamped; it goes on while it sleeps."""
SNAPSHOT_US = 1000
"""The clocks of a snapshot are read one after the other, within so long."""
UNKNOWN = "nothing is published of its accuracy"
GAUGE = Rail("battery", "battery", "gauge", instrument="gauge", source=UNKNOWN)


def streams(hz: float) -> tuple[Stream, Stream]:
    """Return the streams of rails and of the battery."""
    period_ns = 1e9 / hz
    rails = Stream(
        "perfetto_rails", clock=CLOCK, period_ns=period_ns, rail=str, energy=Column(Unit("uJ"), pa.int64())
    )
    battery = Stream(
        "perfetto_battery", clock=CLOCK, period_ns=period_ns, rail=str, status=str, plugged=bool, volts=V, amps=A, mean_amps=A,
        capacity=PERCENT, remaining=Unit("mA.h"), reported=int,
    )  # fmt: skip
    return rails, battery


@dataclass
class Rows:
    """Puts rows, readings and gaps in the outlet. ``real`` is the phone's wall clock, in its ``epoch``."""

    out: Outlet
    hz: float
    unit: GaugeUnit
    ignore_plugged: bool
    real: Clock
    epoch: int
    service: _dumpsys.Battery
    """What the battery service said last, which decides what the gauge's current means."""
    names: dict[int, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    _about: dict[str, dict[str, Any]] = field(default_factory=dict)
    _counted: dict[int, int] = field(default_factory=dict)
    """When each rail was asked last, ms."""
    _newest: int = 0
    _looked: int | None = None
    """When the battery was read last, ms."""
    _sequences: set[int] = field(default_factory=set)
    _hole: str = ""
    _first: dict[str, Any] = field(default_factory=dict)
    """What was found out about the gauge."""

    def __post_init__(self) -> None:
        self.rails, self.battery = streams(self.hz)

    def take(self, said: Said) -> None:
        """Take one thing that the trace says."""
        match said:
            case Clocks():
                self._read(said)
            case Rails():
                self._count(said)
            case Battery():
                self._look(said)
            case Lost(counts):
                if counts != self.lost:
                    self.lost, self._hole = counts, f"perfetto lost {_listed(counts)}"
            case Dropped(sequence):  # always so of a sequence's first packet
                if sequence in self._sequences:
                    self._hole = self._hole or "perfetto dropped packets"
                self._sequences.add(sequence)

    def facts(self) -> Mapping[str, Any]:
        """What was found out: rails by name, the gauge, and what was lost."""
        return {"perfetto": {"rails": self._about, "gauge": self._first, "lost": self.lost}}

    def _read(self, clocks: Clocks) -> None:
        wall = clocks.real_ns // 1000
        self.out.clock_reading(
            Reading(
                CLOCK, clocks.boot_ns // 1_000_000, not_before=wall - SNAPSHOT_US, not_after=wall + 1 + SNAPSHOT_US,
                against=self.real, against_epoch=self.epoch,
            )
        )  # fmt: skip

    def _count(self, rails: Rails) -> None:
        for index, about in rails.names.items():
            name = about.name or f"rail_{index}"
            if name in self.names.values() and self.names.get(index) != name:
                name = f"{name}@{index}"
            self.names[index] = name
            self._about[name] = {"subsystem": about.subsystem, "sampling_rate_hz": about.rate_hz}
        for energy in sorted(rails.energies, key=lambda one: one.boot_ms):
            if self._counted.get(energy.rail) == energy.boot_ms or energy.boot_ms < self._newest:
                continue  # a repeat, or older than what is told already: a counter loses nothing by one row less
            self._counted[energy.rail] = self._newest = energy.boot_ms
            name = self.names.get(energy.rail, f"rail_{energy.rail}")
            rail = Rail(name, "rail", "counter", resolution=1e-6, instrument="counter", source=UNKNOWN)
            self.out.rail(self.rails, rail)
            self.out.row(self.rails, tick=energy.boot_ms, rail=name, energy=energy.microjoules)

    def _look(self, battery: Battery) -> None:
        tick = battery.boot_ns // 1_000_000
        if self._looked is not None and tick <= self._looked:
            return
        if self._hole and self._looked is not None:
            self.out.gap(self.battery, self._looked, tick, self._hole)
        self._hole, self._looked = "", tick
        volts = volts_of(battery.microvolts) if battery.microvolts else self.service.volts
        if battery.current is not None:
            self.out.rail(self.battery, GAUGE)
            self._tell_gauge(battery.current, volts, own=bool(battery.microvolts))
        self.out.row(
            self.battery, tick=tick, rail=GAUGE.name, status=self.service.status, plugged=self.service.plugged, volts=volts,
            amps=self._amps(battery.current), mean_amps=self._amps(battery.average), capacity=battery.capacity,
            remaining=None if battery.charge is None else battery.charge / 1000, reported=battery.current,
        )  # fmt: skip

    def _tell_gauge(self, current: int, volts: float | None, *, own: bool) -> None:
        """Decide on the unit by the first current that measures the load, and keep what decided."""
        if "unit" in self._first or not self._measures(current):
            return
        guessed = self.unit == "auto"
        self._first = {
            "unit": guess_unit(Gauge(current, volts, is_power=False)) if guessed else self.unit,
            "decided": "by size of the first discharging reading" if guessed else "configured",
            "first": current,
            "sign": sign_of(self.service.status, current),
            "volts": "perfetto's" if own else "the battery service's, every 10 s",
        }

    def _amps(self, number: int | None) -> float | None:
        if number is None or not self._measures(number):
            return None
        return abs(number) * (1e-3 if self._first.get("unit") == "milli" else 1e-6)

    def _measures(self, number: int) -> bool:
        unplugged = self.ignore_plugged or not self.service.plugged
        return self.service.status == "Discharging" and unplugged and number != 0


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing more"

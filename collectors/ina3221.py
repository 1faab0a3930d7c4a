"""The rails of a Jetson, from the INA3221s on its board."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._ina3221_channels import Channel, Seen, channels, rail_of, sum_of
from melt_stream.collectors._jetson_rails import TOTAL, parent, parts_of_total, whole, with_total
from melt_stream.collectors._sysfs import health, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Rail
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream
from melt_stream.units import A, V, W

DRIVERS = "sys/bus/i2c/drivers"
HWMON = f"{DRIVERS}/ina3221/*/hwmon/hwmon*"
"""JetPack 5 and later."""
IIO = f"{DRIVERS}/ina3221x/*/iio[:_]device*"
"""JetPack 4."""
READ = ("in[123]_input", "curr[123]_input", "in_voltage[0-2]_input", "in_current[0-2]_input")
CONSTANT = (
    "in[123]_label",
    "in[123]_enable",
    "shunt[123]_resistor",
    "update_interval",
    "samples",
    "rail_name_[0-2]",
)


@dataclass
class Ina3221(FileSensor):
    """Every connected channel of every INA3221, a rail each, and the board's total where it is a sum of them.

    Channels named NC, switched off, or that cannot be read are no rails. One that fails later costs its own row, and the
    total's.
    """

    total: tuple[str, ...] | None = None
    """Rails whose sum is the board's power, as rail ``total``; None: what is known of the board."""
    shunts: dict[str, float] = field(default_factory=dict)
    """Ohm, of rails whose shunt is not told in /sys (JetPack 4 does not): steps and offsets follow from it."""

    stream = Stream("ina3221", rail=str, watts=W, volts=V, amps=A, repeats=int)
    """``repeats``: reads in a row, up to this one, that showed what the one before showed."""
    _channels: list[Channel] = field(default_factory=list, init=False, repr=False, compare=False)
    _keys: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    _parts: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _begun: dict[str, Seen] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What each rail showed first."""
    _last: dict[str, tuple[Seen, int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        paths: dict[str, str] = {}
        for layout in (HWMON, IIO):
            for name in (*READ, *CONSTANT):
                for path in find(f"{layout}/{name}"):
                    key = f"{path.removeprefix(DRIVERS).split('/')[2]}/{path.rpartition('/')[2]}"
                    paths.setdefault(key, Constant(path) if name in CONSTANT else path)
        # A voltage and its current one after the other: what lies between is their error under a changing load.
        return dict(sorted(paths.items(), key=lambda item: (_chip(item[0]), _digits(item[0]))))

    def parse(self, files: Files) -> list[Row]:
        if self._keys != files.keys():
            self._keys, self._channels = frozenset(files), list(channels(files))
        seen = {c.name: found for c in self._channels if (found := c.read(files))}
        if not seen:
            kind = DeviceError if self.first is None else Transient
            raise kind(f"INA3221: expected a rail with voltage and current, got none; {why_not(files)}")
        for name, found in seen.items():
            self._begun.setdefault(name, found)
        if self._parts is None:
            self._parts = parts_of_total([c.name for c in self._channels], self.total, "ina3221.total")
        watts = with_total({name: found.watts for name, found in seen.items()}, self._parts)
        return [self._row(name, power, seen.get(name)) for name, power in watts.items()]

    def _row(self, name: str, watts: float, seen: Seen | None) -> Row:
        if seen is None:  # a sum has neither one voltage nor one current
            return {"rail": name, "watts": watts}
        before, repeats = self._last.get(name, (None, 0))
        repeats = repeats + 1 if before == seen else 0
        self._last[name] = seen, repeats
        return {"rail": name, "watts": watts, "volts": seen.volts, "amps": seen.amps, "repeats": repeats}

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        return [(self.stream, rail) for rail in self._rails()]

    def _rails(self) -> Iterator[Rail]:
        names, parts = [c.name for c in self._channels], self._parts or ()
        board, made = whole(names, parts), {}
        for channel in self._channels:
            if (seen := self._begun.get(name := channel.name)) is not None:
                made[name] = rail_of(
                    channel,
                    seen,
                    self.hz,
                    channel.ohm or self.shunts.get(name),
                    name == board,
                    parent(name, names, board),
                )
        yield from made.values()
        if board == TOTAL and set(parts) <= made.keys():
            yield sum_of(TOTAL, [made[part] for part in parts])

    def facts(self) -> Mapping[str, Any]:
        rails = {rail.name: rail for rail in self._rails()}
        told = {
            c.name: {
                "chip": c.chip, "channel": c.number, "shunt_ohm": c.ohm or self.shunts.get(c.name),
                "watts_step": rails[c.name].resolution, "update_interval_ms": c.interval_ms, "samples": c.samples,
            }
            for c in self._channels if c.name in rails
        }  # fmt: skip
        unread = [c.name for c in self._channels if c.name not in rails]
        board = whole([c.name for c in self._channels], self._parts or ())
        return {"ina3221": {"board": board, "sum_of": self._parts or (), "rails": told, "unread": unread}}

    def check(self) -> Health:
        there = health(self, "INA3221", DRIVERS, "a Jetson, or a board whose kernel has the driver ina3221")
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        names = [channel.name for channel in channels(files) if channel.read(files)]
        if not names:
            return Health(False, "no channel of an INA3221 can be read", "see the kernel's log for the chip")
        return Health(True, f"{len(names)} rails: {', '.join(names)}")

    @staticmethod
    def example() -> dict[str, Any]:
        chip = f"{DRIVERS}/ina3221/1-0040/hwmon/hwmon3"
        channel = {
            1: ("VDD_GPU_SOC", "19952", "200", "2000"),
            2: ("VDD_CPU_CV", "19944", "40", "2000"),
            3: ("VIN_SYS_5V0", "5008", "780", "2000"),
        }
        tree = {f"{chip}/update_interval": "4", f"{chip}/samples": "1"}
        for n, (label, volts, amps, ohm) in channel.items():
            tree |= {
                f"{chip}/in{n}_label": label, f"{chip}/in{n}_input": volts, f"{chip}/curr{n}_input": amps,
                f"{chip}/shunt{n}_resistor": ohm,
            }  # fmt: skip
        return {"kind": "files", "tree": tree, "config": {}}


def _chip(key: str) -> str:
    return key.partition("/")[0]


def _digits(key: str) -> str:
    return "".join(filter(str.isdigit, key.partition("/")[2]))

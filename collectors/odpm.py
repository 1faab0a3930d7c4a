"""The power monitors inside Pixel phones: an energy counter for each rail of two chips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.clock import Clock
from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, parts, text, unique, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Boundary, Rail
from melt_stream.sensor import ClockShown, Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import Unit

DEVICES = "sys/bus/iio/devices"
CLOCK = Clock("boottime", tick_ns=1e6)
"""The phone's CLOCK_BOOTTIME in ms, which goes on while it sleeps; the chips' refreshes are stamped by it."""
COUNTS_A_REFRESH, SLOWEST_HZ, LEAST_S = 20, 7.628125, 0.05
"""The driver asks the chip again after so many of its samples (older ones: after 50 ms); its slowest rate."""
TOTAL = "total"
_STAMP = re.compile(r"t=(\d{1,15})")
_CHANNEL = re.compile(r"CH\d{1,3}\(T=(\d{1,15})\)\[([^\]\s]{1,80})\], (\d{1,18})")
_NAME = re.compile(r"([^()\s]{1,80})\(([^()\s]{1,80})\):(\S{1,80})")


class Counter(NamedTuple):
    """One channel, as a refresh left it."""

    duration: int
    """For how long it has counted, ms."""
    energy: int
    """uJ."""


class Refresh(NamedTuple):
    """What ``energy_value`` says: when its chip was asked last, and each rail's counter then."""

    tick: int
    counters: dict[str, Counter]


@dataclass
class Odpm(FileSensor):
    """Every rail's counter of uJ, at the moment (of the phone's clock) at which the driver last asked the chip.

    A read that shows the same moment again makes no row. Where the phone was started anew, and where a counter was and
    only its duration tells so, the clock has a new epoch, across which nothing is counted.
    """

    total: tuple[str, ...] = ()
    """Rails whose sum is rail ``total``: those that feed all others, which no file tells. None: there is no total."""
    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 10.0
    """Reads a second. The chips are asked at most every 20 of their samples: 20 ms at 1 kHz, 160 ms at 125 Hz."""

    elsewhere = "perfetto_power"
    stream = Stream(
        "odpm",
        clock=CLOCK,
        rail=str,
        energy=Column(Unit("uJ"), pa.int64()),
        duration=Column(Unit("ms"), pa.int64()),
    )
    _last: dict[str, Refresh] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Of each chip, in this epoch."""
    _epoch: int = field(default=0, init=False, repr=False, compare=False)
    _newest: int = field(default=0, init=False, repr=False, compare=False)
    """The latest moment of which there are rows, in this epoch."""
    _read: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """The chips that the read before could be read from."""
    _seen: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Each rail's chip, by its full name."""
    _fresh: dict[str, Counter] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The parts of the total that were refreshed since its last row."""

    def files(self, find: Find) -> Mapping[str, str]:
        paths: dict[str, str] = {}
        for path in find(f"{DEVICES}/iio:device*/energy_value"):
            folder = path.rpartition("/")[0]
            chip = folder.rpartition("/")[2]
            paths |= {f"{chip}/{name}": f"{folder}/{name}" for name in ("energy_value", "sampling_rate")}
            paths |= {f"{chip}/{name}": Constant(f"{folder}/{name}") for name in ("name", "available_rails")}
        return paths

    def parse(self, files: Files) -> list[Row | ClockShown]:
        found = refreshes(files)
        if not found:
            kind = DeviceError if self.first is None else Transient
            raise kind(
                f"ODPM: expected energy_value to say t=..., CH0(T=...)[...], ..., got none; {why_not(files)}"
            )
        names = {name for one in found.values() for name in one.counters}
        if self.first is None and (missing := set(self.total) - names):
            raise DeviceError(
                f"ODPM: total: expected the rails {', '.join(sorted(missing))}, got {', '.join(sorted(names))}"
            )
        self._begin_anew(found)
        items = [
            item
            for chip, now in sorted(found.items(), key=lambda one: one[1].tick)
            for item in self._items(chip, now, files)
        ]
        self._read = set(found)
        return items

    def _begin_anew(self, found: Mapping[str, Refresh]) -> None:
        """Begin a new epoch where a difference to the one before would mean nothing, and not show it."""
        if any(chip in self._last and restarted(self._last[chip], now) for chip, now in found.items()):
            self._last, self._newest, self._fresh, self._epoch = {}, 0, {}, self._epoch + 1

    def _items(self, chip: str, now: Refresh, files: Files) -> Iterator[Row | ClockShown]:
        last = self._last.get(chip)
        if last is not None and now.tick == last.tick:
            return
        self._last[chip] = now
        fresh = last is not None and chip in self._read
        yield ClockShown(CLOCK, now.tick, epoch=self._epoch, age_ns=oldest_ns(chip, files), fresh=fresh)
        if (
            now.tick < self._newest
        ):  # time must not go back in a stream, and a counter loses nothing by one row less
            return
        self._newest = now.tick
        for name, counter in now.counters.items():
            self._seen[name] = chip
            yield self._row(name, counter, now.tick)
        self._fresh |= {name: now.counters[name] for name in self.total if name in now.counters}
        if self.total and len(self._fresh) == len(set(self.total)):
            parts = self._fresh.values()
            whole = Counter(min(one.duration for one in parts), sum(one.energy for one in parts))
            self._fresh = {}
            yield self._row(TOTAL, whole, now.tick)

    def _row(self, rail: str, counter: Counter, tick: int) -> Row:
        return {
            "rail": rail, "energy": counter.energy, "duration": counter.duration, "tick": tick, "epoch": self._epoch,
        }  # fmt: skip

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        names = [*self._seen, *([TOTAL] if self.total and set(self.total) <= set(self._seen) else [])]
        return [(self.stream, self._rail(name)) for name in names]

    def _rail(self, name: str) -> Rail:
        parent = TOTAL if name in self.total else None
        boundary: Boundary = "board" if name == TOTAL else "rail"
        source = "nothing is published of its accuracy"
        return Rail(
            name, boundary, "counter", parent=parent, resolution=1e-6, instrument="counter", source=source
        )

    def facts(self) -> Mapping[str, Any]:
        if self.first is None:
            return {}
        chips = {
            text(self.first, f"{chip}/name") or chip: {
                "sampling_rate_hz": self.first.number(f"{chip}/sampling_rate"),
                "rails": {
                    schematic: {"name": name, "subsystem": subsystem}
                    for name, schematic, subsystem in _NAME.findall(
                        text(self.first, f"{chip}/available_rails") or ""
                    )
                },
            }
            for chip in parts(self.first, "energy_value")
        }
        return {"odpm": chips}

    def check(self) -> Health:
        there = health(self, "ODPM", DEVICES, "a Pixel 6 or later, with root (or a userdebug build)")
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        if not (found := refreshes(files)):
            return Health(
                False, f"no energy_value can be read: {why_not(files)}", "root, or a userdebug build"
            )
        return Health(True, f"{sum(len(one.counters) for one in found.values())} rails of {len(found)} chips")

    @staticmethod
    def example() -> dict[str, Any]:
        chips = {
            "iio:device0": (
                "s2mpg10-odpm",
                "t=93245\n",
                {"VSYS_PWR_DISPLAY": 48_213_077, "S2M_VDD_CPUCL2": 77_104_233},
            ),
            "iio:device1": ("s2mpg11-odpm", "t=93247\n", {"S2S_VDD_G3D": 9_440_125}),
        }
        tree: dict[str, str] = {}
        for device, (chip, stamp, rails) in chips.items():
            lines = [f"CH{n}(T=78102)[{rail}], {energy}\n" for n, (rail, energy) in enumerate(rails.items())]
            tree |= {
                f"{DEVICES}/{device}/name": chip, f"{DEVICES}/{device}/sampling_rate": "125.000000",
                f"{DEVICES}/{device}/energy_value": stamp + "".join(lines),
                f"{DEVICES}/{device}/available_rails": "".join(f"{rail.lower()}({rail}):Soc\n" for rail in rails),
            }  # fmt: skip
        return {"kind": "files", "tree": tree, "config": {}}


def refreshes(files: Files) -> dict[str, Refresh]:
    """Return what each chip's ``energy_value`` says, by folder; rails of one name have the folder after it."""
    found = {
        chip: one
        for chip in parts(files, "energy_value")
        if (one := refresh(text(files, f"{chip}/energy_value") or ""))
    }
    names = unique({f"{chip}/{rail}": rail for chip, one in found.items() for rail in one.counters})
    return {
        chip: Refresh(one.tick, {names[f"{chip}/{rail}"]: counter for rail, counter in one.counters.items()})
        for chip, one in found.items()
    }


def refresh(text: str) -> Refresh | None:
    """Read one ``energy_value``; None where its first line or all channels are missing. Lines that are not whole are left out."""
    first, *lines = text.splitlines() or [""]
    stamp = _STAMP.fullmatch(first.strip())
    channels = (match for line in lines if (match := _CHANNEL.fullmatch(line.strip())))
    counters = {match[2]: Counter(int(match[1]), int(match[3])) for match in channels}
    return Refresh(int(stamp[1]), counters) if stamp and counters else None


def restarted(last: Refresh, now: Refresh) -> bool:
    """Tell whether the phone was started anew, or a counter was in a way that its energy does not show by falling."""
    hidden = (
        now.counters[name].duration < before.duration and now.counters[name].energy >= before.energy
        for name, before in last.counters.items()
        if name in now.counters
    )
    return now.tick < last.tick or any(hidden)


def oldest_ns(chip: str, files: Files) -> int:
    """Return how old the driver lets a chip's numbers become before a read makes it ask again."""
    rate = files.number(f"{chip}/sampling_rate")
    return round(max(COUNTS_A_REFRESH / (rate if rate and rate > 0 else SLOWEST_HZ), LEAST_S) * 1e9)

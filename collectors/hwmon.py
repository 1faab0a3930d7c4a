"""Power sensors on boards and cards, through the kernel's hwmon tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, integer, text, unique
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Boundary, Rail
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import A, Unit, V, W

HWMON = "sys/class/hwmon"
POWER = Stream("power", rail=str, watts=W)
"""``power*_input``: instantaneous."""
AVERAGE = Stream("average", rail=str, watts=W)
"""``power*_average``: the mean over the interval that the chip states, or over one that only its firmware knows."""
ENERGY = Stream("hwmon_energy", rail=str, energy=Column(Unit("uJ"), pa.int64()))
"""``energy*_input``: counts up since the driver was loaded."""
SUPPLY = Stream("supply", rail=str, volts=V, amps=A)
"""``in*_input`` with the ``curr*_input`` of the same rail, where the chip has no power for it."""
BOUNDARIES: dict[str, Boundary] = {"amdgpu": "package", "power_meter": "board", "amd_energy": "package"}
"""Of chips whose rails are known; a shunt sensor may sit anywhere, so every other is ``rail``."""
LAST_CHANNEL = {"ina3221": 3}
"""Its ``curr4`` is a sum and its ``in4`` a shunt voltage: the same number, but no pair."""
_SENSOR = re.compile(r"(power|energy|in|curr)(\d+)_(input|average)")
_PMBUS = re.compile(r"[pvi]((?:in|out)\d*)")
"""PMBus labels a rail's power, voltage and current pout1, vout1 and iout1, under different numbers."""


class Channel(NamedTuple):
    """One rail in one stream, and the files and factors of its columns."""

    stream: Stream
    rail: Rail
    columns: dict[str, tuple[str, float | None]]
    """A factor of None keeps a whole number whole."""


@dataclass
class Hwmon(FileSensor):
    """Every chip's power, energy and current-with-voltage channels, one rail each.

    Batteries and chargers, which the kernel shows here too, are left to ``battery``.
    """

    boundary: dict[str, Boundary] = field(default_factory=dict)
    """Where chips (``ina226``) or rails (``ina226-power1``) sit, by name: ``{ina226 = "dc_in"}``."""

    stream = POWER
    _channels: list[Channel] = field(default_factory=list, init=False, repr=False, compare=False)
    _seen: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False, compare=False)
    _keys: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        paths: dict[str, str] = {}
        for folder in _chips(find):
            here = [path for name in ("power", "energy", "curr") for path in find(f"{folder}/{name}*_*")]
            if any(_SENSOR.search(path) for path in here):
                volts = [path for name in ("input", "label") for path in find(f"{folder}/in*_{name}")]
                wanted = [
                    p
                    for p in [*here, *volts]
                    if p.endswith(("_input", "_average", "_label", "_average_interval"))
                ]
                chip = PurePosixPath(folder.removesuffix("/device")).name
                paths |= {f"{chip}/{PurePosixPath(p).name}": _path(p) for p in [f"{folder}/name", *wanted]}
        return paths

    def parse(self, files: Files) -> list[tuple[Stream, Row]]:
        if self._keys != files.keys():
            self._keys, self._channels = frozenset(files), list(channels(files, self.boundary))
        rows = [
            (c.stream, {"rail": c.rail.name, **values})
            for c in self._channels
            if (values := _values(c, files))
        ]
        self._seen = self._seen | {
            (stream.name, row["rail"]) for stream, row in rows
        }  # another thread reads it
        if not rows:
            kind = DeviceError if self.first is None else Transient
            why = next(
                (f"{u.path}: {u.reason}" for u in files.unreadable),
                "no power, energy, or current with voltage",
            )
            raise kind(
                f"hwmon: expected a power reading from {sorted(set(map(_chip, files)))}, got none; {why}"
            )
        return rows

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        # A channel that was never read is no rail (yet): the account must not wait for one.
        return [(c.stream, c.rail) for c in self._channels if (c.stream.name, c.rail.name) in self._seen]

    def check(self) -> Health:
        there = health(
            self,
            "chip that measures power",
            HWMON,
            "bare metal, and the sensor's driver (sensors-detect; modprobe ina2xx, ina3221, acpi_power_meter, ...)",
        )
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        rails = [c.rail.name for c in channels(files, self.boundary) if _values(c, files)]
        if not rails:
            return Health(
                False, "no power channel can be read", "run as root; see the kernel's log for the chip"
            )
        return Health(True, f"{len(rails)} rails: {', '.join(rails)}")

    @staticmethod
    def example() -> dict[str, Any]:
        chips = {
            "hwmon0": {"name": "coretemp", "temp1_input": "41000"},
            "hwmon1": {
                "name": "ina226",
                "in1_input": "12048",
                "curr1_input": "812",
                "power1_input": "9775000",
            },
            "hwmon2": {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5040", "curr1_input": "1200"},
            "hwmon3": {
                "name": "power_meter",
                "power1_average": "98000000",
                "power1_average_interval": "1000",
            },
            "hwmon4": {"name": "amd_energy", "energy1_label": "Esocket0", "energy1_input": "1843000000"},
        }
        tree = {
            f"{HWMON}/{chip}/{name}": value for chip, files in chips.items() for name, value in files.items()
        }
        return {"kind": "files", "tree": tree, "config": {"boundary": {"ina226": "dc_in"}}}


def _chips(find: Find) -> list[str]:
    """The folders of chips' files, which old drivers keep one level down; no power supplies."""
    supplies = {
        p.rpartition("/device/")[0]
        for f in ("capacity", "online")
        for p in find(f"{HWMON}/hwmon*/device/{f}")
    }
    folders = [p.rpartition("/")[0] for where in ("", "device/") for p in find(f"{HWMON}/hwmon*/{where}name")]
    return [folder for folder in folders if folder.removesuffix("/device") not in supplies]


def _path(path: str) -> str:
    return path if path.endswith(("_input", "_average")) else Constant(path)


def channels(files: Files, boundary: Mapping[str, Boundary]) -> Iterator[Channel]:
    """Return every chip's channels; rails are called ``<chip>-<label>``, with the chip's number where two are alike."""
    chips = sorted(set(map(_chip, files)))
    names = unique({chip: text(files, f"{chip}/name") or chip for chip in chips})
    for chip in chips:
        kind = text(files, f"{chip}/name") or chip
        for stream, label, columns in _measured(chip, kind, files):
            name = f"{names[chip]}-{label}"
            where = boundary.get(name) or boundary.get(kind) or _boundary(kind, label)
            yield Channel(stream, _rail(name, where, stream, columns, files), columns)


_Found = tuple[Stream, str, dict[str, tuple[str, float | None]]]


def _measured(chip: str, kind: str, files: Files) -> Iterator[_Found]:
    """Yield each channel's stream, label and columns: power and energy, then pairs that no power stands for."""
    numbers = _numbers(chip, files)
    has_power = {_place(chip, "power", n, files) for sort, n, _ in numbers if sort == "power"}
    volts = {_place(chip, "in", n, files): n for sort, n, _ in numbers if sort == "in"}
    by_number = {n for sort, n, _ in numbers if sort == "in"}
    for sort, n, suffix in numbers:
        label = text(files, f"{chip}/{sort}{n}_label") or f"{sort}{n}"
        key = f"{chip}/{sort}{n}_{suffix}"
        if sort == "power":
            yield AVERAGE if suffix == "average" else POWER, label, {"watts": (key, 1e-6)}
        elif sort == "energy":
            yield ENERGY, label, {"energy": (key, None)}
        elif sort == "curr" and n <= LAST_CHANNEL.get(kind, n):
            place = _place(chip, "curr", n, files)
            pair = volts.get(place, n if n in by_number else None)
            if pair is not None and not has_power & {place, str(n)}:
                named = (
                    text(files, f"{chip}/in{pair}_label")
                    or text(files, f"{chip}/curr{n}_label")
                    or f"supply{n}"
                )
                yield SUPPLY, named, {"volts": (f"{chip}/in{pair}_input", 1e-3), "amps": (key, 1e-3)}


def _numbers(chip: str, files: Files) -> list[tuple[str, int, str]]:
    found = (_SENSOR.fullmatch(key.partition("/")[2]) for key in files if _chip(key) == chip)
    return sorted((m[1], int(m[2]), m[3]) for m in found if m)


def _place(chip: str, sort: str, number: int, files: Files) -> str:
    """What a power, voltage and current of one rail have in common: the end of a PMBus label, a label, or a number."""
    label = (text(files, f"{chip}/{sort}{number}_label") or str(number)).lower()
    return pmbus[1] if (pmbus := _PMBUS.fullmatch(label)) else label


def _rail(
    name: str, where: Boundary, stream: Stream, columns: Mapping[str, tuple[str, float | None]], files: Files
) -> Rail:
    if stream is ENERGY:
        return Rail(
            name, where, "counter", resolution=1e-6, instrument="counter", source="the chip's data sheet"
        )
    if stream is AVERAGE:
        (key, _), *_ = columns.values()
        window = files.number(f"{key}_interval", 1e6)
        return Rail(
            name, where, "mean", window_ns=window or None, instrument="gauge", source="the chip's data sheet"
        )
    return Rail(name, where, "gauge", instrument="gauge", source="the chip's data sheet")


def _boundary(kind: str, label: str) -> Boundary:
    return "rail" if label.startswith("Ecore") else BOUNDARIES.get(kind, "rail")


def _values(channel: Channel, files: Files) -> Row:
    """The channel's row; empty where any of its files cannot be read."""
    row: Row = {}
    for column, (key, scale) in channel.columns.items():
        if (value := integer(files, key)) is None:
            return {}
        row[column] = value if scale is None else value * scale
    return row


def _chip(key: str) -> str:
    return key.partition("/")[0]

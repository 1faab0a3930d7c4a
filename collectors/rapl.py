"""Energy counters of x86 processors: RAPL, through the kernel's powercap tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, integer, parts, text, unique
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Boundary, Rail
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import Unit

POWERCAP = "sys/class/powercap"
CURE = (
    f"sudo chmod a+r /{POWERCAP}/*/energy_uj (until the next boot), a udev rule that does so, such as "
    'SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj", '
    "setcap cap_dac_read_search+ep on a copy of the interpreter, or root"
)
SOURCE = (
    "no accuracy published; Khan et al., RAPL in Action, doi 10.1145/3177754, compare it with wall meters"
)


@dataclass
class Rapl(FileSensor):
    """Each powercap zone's ``energy_uj`` as it is; differences, wraps and watts are the analysis' business.

    Zones lie inside one another (psys > package > core, uncore; dram beside the package): rails name their parent,
    and are never summed. Raises ``DeviceError`` with the cure where only root may read them.
    """

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 20.0
    """Reads a second. The hardware counts about every ms, unevenly: intervals below 20 ms are noisy."""

    stream = Stream("rapl", rail=str, energy=Column(Unit("uJ"), pa.int64()))
    _newest: Files | None = field(default=None, init=False, repr=False, compare=False)
    _labels: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        zones = _zones(find).items()
        return {f"{zone}/energy_uj": f"{folder}/energy_uj" for zone, folder in zones} | {
            f"{zone}/{name}": Constant(f"{folder}/{name}")
            for zone, folder in zones
            for name in ("name", "max_energy_range_uj")
        }

    def parse(self, files: Files) -> list[Row]:
        if self._labels.keys() != (zones := set(parts(files, "energy_uj"))):
            self._labels = {zone: label for zone, label in labels(files).items() if zone in zones}
        self._newest = files
        rows = list(self._rows(files))
        if not rows:
            raise self._refused(files)
        return rows

    def _rows(self, files: Files) -> Iterator[Row]:
        for zone, label in self._labels.items():
            if (energy := integer(files, f"{zone}/energy_uj")) is not None:
                yield {"rail": label, "energy": energy}

    def _refused(self, files: Files) -> DeviceError:
        why = next(
            (f"{u.path}: {u.reason}" for u in files.unreadable if u.path.endswith("energy_uj")), "no number"
        )
        if self.first is not None:
            return Transient(f"RAPL: cannot read {why}")
        return DeviceError(
            f"RAPL: cannot read {why}; since 2020 (CVE-2020-8694) only root may read energy_uj; try: {CURE}"
        )

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        if (files := self._newest) is None:
            return []
        names = labels(files)
        readable = [zone for zone in names if integer(files, f"{zone}/energy_uj") is not None]
        return [(self.stream, _rail(zone, names, files)) for zone in readable]

    def check(self) -> Health:
        paths = self.files(finder(self.root))
        if not paths:
            return health(
                self,
                "RAPL zone",
                POWERCAP,
                "an x86 processor on bare metal (virtual machines and ARM have none) and modprobe intel_rapl_msr",
            )
        files = read_files(self.root, paths)
        zones = parts(files, "energy_uj")
        good = [zone for zone in zones if integer(files, f"{zone}/energy_uj") is not None]
        if not good:
            return Health(False, str(self._refused(files)).partition("; try")[0], CURE)
        return Health(
            True, f"{len(good)} of {len(zones)} zones: {', '.join(labels(files)[zone] for zone in good)}"
        )

    @staticmethod
    def example() -> dict[str, Any]:
        zones = {
            "intel-rapl:0": ("package-0", "21943781231", "262143328850"),
            "intel-rapl:0:0": ("core", "9943781231", "262143328850"),
            "intel-rapl:0:1": ("dram", "1043781231", "65712999613"),
            "intel-rapl:1": ("psys", "41943781231", "262143328850"),
        }
        names = ("name", "energy_uj", "max_energy_range_uj")
        tree = {
            f"{POWERCAP}/{zone}/{name}": value
            for zone, values in zones.items()
            for name, value in zip(names, values, strict=True)
        }
        return {"kind": "files", "tree": tree, "config": {}}


def _zones(find: Find) -> dict[str, str]:
    """Each zone's folder, once: /sys shows it flat (by links) and nested in its parent and control type."""
    folders = (
        path.rpartition("/")[0]
        for depth in range(4)
        for path in find(f"{POWERCAP}/{'*/' * depth}*:*/energy_uj")
    )
    zones: dict[str, str] = {}
    for folder in folders:
        zones.setdefault(folder.rpartition("/")[2], folder)
    return dict(sorted(zones.items()))


def labels(files: Files) -> dict[str, str]:
    """Return each zone's rail name: ``package-0``, ``package-0-core``, ``psys``; ``mmio-package-0`` for the same
    counter read another way.
    """
    return unique({zone: _label(zone, files) for zone in parts(files, "name")})


def _label(zone: str, files: Files) -> str:
    name = text(files, f"{zone}/name") or zone
    parent = _enclosing(zone)
    if parent and f"{parent}/name" in files:
        return f"{_label(parent, files)}-{name}"
    way = zone.partition(":")[0].removeprefix("intel-rapl").strip("-")
    return f"{way}-{name}" if way else name


def _enclosing(zone: str) -> str:
    """The zone that a sub-zone lies in: ``intel-rapl:0`` for ``intel-rapl:0:1``; else an empty string."""
    parent = zone.rpartition(":")[0]
    return parent if ":" in parent else ""


def _rail(zone: str, names: Mapping[str, str], files: Files) -> Rail:
    largest = integer(files, f"{zone}/max_energy_range_uj")
    name = text(files, f"{zone}/name") or ""
    psys = next((label for z, label in names.items() if text(files, f"{z}/name") == "psys"), None)
    # dram is listed inside its package, but its current does not flow through it.
    inside = name in {"core", "uncore"} and _enclosing(zone)
    parent = names.get(_enclosing(zone)) if inside else psys
    return Rail(
        names[zone],
        boundary=_boundary(name),
        kind="counter",
        parent=None if parent == names[zone] else parent,
        modulus=None if largest is None else float(modulus(largest)),
        resolution=None if largest is None else largest / (2**32 - 1) * 1e-6,
        instrument="counter",
        source=SOURCE,
    )


def _boundary(name: str) -> Boundary:
    if name == "psys":
        return "board"
    return "package" if name.startswith("package") else "rail"


def modulus(largest: int) -> int:
    """Return at which count, in uJ, a zone wraps to 0, from its ``max_energy_range_uj``.

    The register has 32 bits and the range is its last count: the wrap comes one hardware unit later (61 uJ at
    2^-14 J). A counter in single uJ wraps at ``largest + 1``.
    """
    return largest + max(1, round(largest / (2**32 - 1)))

"""Temperatures of the kernel's thermal zones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, parts, text, unique
from melt_stream.outlet import Row
from melt_stream.sensor import Constant, Files, FileSensor, Find
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS

ZoneUnit = Literal["auto", "mCel", "dCel", "Cel"]
_SCALE = {"mCel": 1e-3, "dCel": 0.1, "Cel": 1.0}
COLDEST, HOTTEST = -55.0, 200.0
"""Beyond these no chip works: -256 and -274 say "no reading" (the kernel's THERMAL_TEMP_INVALID is -274000)."""


@dataclass
class Thermal(FileSensor):
    """All thermal zones, by their type (``acpitz@thermal_zone3`` where several have the same).

    The kernel's rule is m degC; some drivers give whole degrees or tenths, which the first value shows. A temperature
    that no sensor can mean is null, and so is a zone that never showed anything but 0.
    """

    unit: ZoneUnit = "auto"
    """What all zones count in, where guessing goes wrong (m degC between 0 and 1.5 degC look like tenths)."""

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 2.0
    """Reads a second."""

    elsewhere = "dumpsys_thermal"
    stream = Stream("thermal", zone=str, celsius=CELSIUS)
    _scales: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        temps = find("sys/class/thermal/thermal_zone*/temp")
        folders = {PurePosixPath(path).parent.name: PurePosixPath(path).parent for path in temps}
        return {f"{zone}/temp": f"{folder}/temp" for zone, folder in folders.items()} | {
            f"{zone}/type": Constant(folder / "type") for zone, folder in folders.items()
        }

    def parse(self, files: Files) -> Iterator[Row]:
        names = unique({zone: text(files, f"{zone}/type") or zone for zone in parts(files, "temp")})
        for zone, name in names.items():
            value = files.number(f"{zone}/temp")
            yield {"zone": name, "celsius": None if value is None else self._celsius(zone, value)}

    def _celsius(self, zone: str, value: float) -> float | None:
        if zone not in self._scales:
            if not value and self.unit == "auto":
                return None
            self._scales[zone] = scale_of(value) if self.unit == "auto" else _SCALE[self.unit]
        celsius = value * self._scales[zone]
        return celsius if COLDEST <= celsius <= HOTTEST else None

    def check(self) -> Health:
        return health(
            self,
            "thermal zone",
            "sys/class/thermal",
            "bare metal: virtual machines have none; on PCs the driver (modprobe x86_pkg_temp_thermal)",
        )

    @staticmethod
    def example() -> dict[str, Any]:
        zones = [
            ("acpitz", "27800"),
            ("x86_pkg_temp", "54000"),
            ("iwlwifi_1", "-256000"),
            ("acpitz", "16800"),
        ]
        base = "sys/class/thermal/thermal_zone"
        tree = {
            f"{base}{i}/{k}": v
            for i, zone in enumerate(zones)
            for k, v in zip(("type", "temp"), zone, strict=True)
        }
        return {"kind": "files", "tree": tree, "config": {}}


def scale_of(value: float) -> float:
    """Return the factor to degC that makes a temperature of ``value``: up to 150 degrees, up to 1500 tenths."""
    if abs(value) <= 150:
        return 1.0
    return 0.1 if abs(value) <= 1500 else 1e-3

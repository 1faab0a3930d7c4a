"""The files in which a Jetson AGX Orin shows its INA3221 chips and temperatures, as its kernel (JetPack 5 and later) lays them out.

Names and quirks are those of the kernel's ``Documentation/hwmon/ina3221.rst`` and of a recorded tree: two chips, a channel's current in
``curr``, its shunt voltage under ``in4`` to ``in6``, sums under 7 and 4, and channels that nothing is connected to, some of them empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CHIPS = "sys/bus/i2c/drivers/ina3221"
ZONES = "sys/devices/virtual/thermal"
SHUNT_STEP = 40
"""Microvolts: what the chip can tell apart."""


class Rail(NamedTuple):
    """A channel that is connected."""

    label: str
    millivolts: int
    share: float
    """Of the load. Those of the first chip make it up; the second's is fed from VIN_SYS_5V0."""
    microohms: int = 2000

    def milliamps(self, watts: float) -> int:
        """Return what the chip shows of its share of the load: whole steps of the shunt's voltage."""
        microvolts = self.share * watts / self.millivolts * 1e3 * self.microohms
        return round(microvolts / SHUNT_STEP) * SHUNT_STEP * 1000 // self.microohms


RAILS: dict[tuple[int, int], Rail] = {
    (0, 1): Rail("VDD_GPU_SOC", 19952, 0.5),
    (0, 2): Rail("VDD_CPU_CV", 19944, 0.2),
    (0, 3): Rail("VIN_SYS_5V0", 5008, 0.3),
    (1, 2): Rail("VDDQ_VDD2_1V8AO", 5016, 0.1),
}
FOLDERS = ("1-0040/hwmon/hwmon3", "1-0041/hwmon/hwmon4")
HEAT = {
    1: ("GPU-therm", 35125), 2: ("CV0-therm", -256000), 3: ("CV1-therm", -256000), 4: ("CV2-therm", -256000), 5: ("SOC0-therm", 36468),
    6: ("SOC1-therm", 36656), 7: ("SOC2-therm", 36718), 8: ("tj-therm", 40062), 9: ("Tboard_tegra", 29000),
}  # fmt: skip


@dataclass
class Tree:
    """The tree below ``root``."""

    root: Path
    _written: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def lay(self, interval_ms: int) -> None:
        """Write all that does not change, and the links of the classes."""
        for chip, folder in enumerate(FOLDERS):
            for name, text in _fixed(chip, interval_ms).items():
                self._write(f"{CHIPS}/{folder}/{name}", text)
            self._link(f"sys/class/hwmon/{Path(folder).name}", f"../../bus/i2c/drivers/ina3221/{folder}")
        for number, (kind, temperature) in HEAT.items():
            zone = f"{ZONES}/thermal_zone{number}"
            self._write(f"{zone}/type", kind)
            self._write(f"{zone}/temp", str(temperature))
            self._link(
                f"sys/class/thermal/thermal_zone{number}",
                f"../../devices/virtual/thermal/thermal_zone{number}",
            )

    def show(self, watts: float) -> None:
        """Write what the chips measure while the load draws so much; a file that does not change is left alone."""
        for chip, folder in enumerate(FOLDERS):
            for name, text in _measured(chip, watts).items():
                self._write(f"{CHIPS}/{folder}/{name}", text)

    def _write(self, path: str, text: str) -> None:
        """Put the file in the old one's place, so that no reader finds half of it."""
        if self._written.get(path) == text:
            return
        self._written[path] = text
        file, new = self.root / path, self.root / "new"
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(f"{text}\n" if text else "")
        new.rename(file)

    def _link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(target)


def _fixed(chip: int, interval_ms: int) -> dict[str, str]:
    files = {
        "name": "ina3221",
        "samples": "1",
        "update_interval": str(interval_ms),
        "in7_label": "sum of shunt voltages",
    }
    for channel in (1, 2, 3):
        rail = RAILS.get((chip, channel))
        files[f"in{channel}_label"] = rail.label if rail else "NC"
        files[f"in{channel}_enable"] = str(int(rail is not None))
        files[f"shunt{channel}_resistor"] = str(rail.microohms if rail else 2000)
    return files


def _measured(chip: int, watts: float) -> dict[str, str]:
    files, total = {}, 0
    for channel in (1, 2, 3):
        rail = RAILS.get((chip, channel))
        amps = rail.milliamps(watts) if rail else 0
        shunt = amps * (rail.microohms if rail else 0) // 1000
        files[f"in{channel}_input"] = str(rail.millivolts if rail else 0)
        files[f"curr{channel}_input"] = str(amps)
        files[f"in{channel + 3}_input"] = str(shunt)
        total += shunt
    if chip == 1:  # as recorded: its first channel is off, and what is made of it as well
        return files | {"in1_input": "", "curr4_input": "", "in7_input": ""}
    return files | {"in7_input": str(total), "curr4_input": str(total // 2)}

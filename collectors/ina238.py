"""Rails behind INA238 chips: a Jetson Thor's input, or any board's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._shunt_monitors import Chip, averaging
from melt_stream.collectors._sysfs import health, integer, parts, text, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.rail import Boundary, Rail
from melt_stream.sensor import Constant, Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, A, V, W

DRIVER = "sys/bus/i2c/drivers/ina238"
MODEL = "sys/firmware/devicetree/base/model"
READ = {"watts": ("power1_input", 1e-6), "volts": ("in1_input", 1e-3), "amps": ("curr1_input", 1e-3), "celsius": ("temp1_input", 1e-3)}  # fmt: skip
"""File and factor of each column: the kernel's Documentation/hwmon/ina238.rst."""
CHIP = Chip(shunt_step_v=5e-6, bus_step_v=3.125e-3, offset_v=5e-6, gain=0.001)
SOURCE = "TI INA238 data sheet: 0.1 % of each voltage, 5 uV over the shunt (limits, 25 degC); the shunt taken as a 1 % part"
THOR, INPUT = "Thor", "VIN"
"""What the model of a board is called, and its input rail, as tegrastats calls it."""


@dataclass
class Ina238(FileSensor):
    """Every INA238, a rail each: the chip's own power, with voltage, current and the die's temperature.

    A Jetson Thor's single one measures the whole board and is rail ``VIN``; any other is called ``ina238-<address>``.
    """

    boundary: Boundary | None = None
    """Where the chips sit; None: ``board`` on a Thor that has one, else ``rail``."""
    ohm: float | None = None
    """The shunt, where /sys does not tell it: steps and offset follow from it."""

    stream = Stream("ina238", rail=str, watts=W, volts=V, amps=A, celsius=CELSIUS)
    _chips: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Rail by chip, of those that were read."""

    def files(self, find: Find) -> Mapping[str, str]:
        paths: dict[str, str] = {}
        for folder in find(f"{DRIVER}/*/hwmon/hwmon*"):
            chip = folder.removeprefix(f"{DRIVER}/").partition("/")[0]
            paths |= {f"{chip}/{name}": p for name, _ in READ.values() for p in find(f"{folder}/{name}")}
            for name in ("shunt_resistor", "update_interval"):
                paths |= {f"{chip}/{name}": Constant(p) for p in find(f"{folder}/{name}")}
        return {**paths, "model": Constant(MODEL)} if paths and find(MODEL) else paths

    def parse(self, files: Files) -> list[Row]:
        rows = list(self._rows(files))
        if not rows:
            kind = DeviceError if self.first is None else Transient
            raise kind(f"INA238: expected the power of a chip, got none; {why_not(files)}")
        return rows

    def _rows(self, files: Files) -> Iterator[Row]:
        chips = parts(files, "power1_input")
        for chip in chips:
            values = {column: _scaled(files, f"{chip}/{name}", by) for column, (name, by) in READ.items()}
            if values["watts"] is not None:
                self._chips = self._chips | {chip: _name(chip, chips, files)}
                yield {"rail": self._chips[chip], **values}

    def rails(self) -> Iterable[tuple[Stream, Rail]]:
        files = self.first
        if files is not None:
            for chip, name in self._chips.items():
                yield self.stream, self._rail(chip, name, files)

    def _rail(self, chip: str, name: str, files: Files) -> Rail:
        micro_ohm = integer(files, f"{chip}/shunt_resistor")
        ohm = micro_ohm * 1e-6 if micro_ohm else self.ohm
        volts, amps = (
            _scaled(files, f"{chip}/{READ[column][0]}", READ[column][1]) or 0.0
            for column in ("volts", "amps")
        )
        interval = integer(files, f"{chip}/update_interval")
        return Rail(
            name, self.boundary or ("board" if name == INPUT else "rail"), instrument="gauge", source=SOURCE,
            **averaging(interval, self.hz), **CHIP.accuracy(volts, amps, ohm),
        )  # fmt: skip

    def check(self) -> Health:
        there = health(self, "INA238", DRIVER, "a Jetson Thor, or a board whose kernel has the driver ina238")
        if not there.ok:
            return there
        files = read_files(self.root, self.files(finder(self.root)))
        rails = [f"{row['rail']} {row['watts']:g} W" for row in self._rows(files)]
        if not rails:
            return Health(
                False, f"no power can be read: {why_not(files)}", "see the kernel's log for the chip"
            )
        return Health(True, ", ".join(rails))

    @staticmethod
    def example() -> dict[str, Any]:
        chip = f"{DRIVER}/2-0044/hwmon/hwmon4"
        tree = {
            f"{chip}/power1_input": "41230000", f"{chip}/in1_input": "19950", f"{chip}/curr1_input": "2066",
            f"{chip}/temp1_input": "41125", f"{chip}/shunt_resistor": "2000", MODEL: "NVIDIA Jetson AGX Thor Developer Kit",
        }  # fmt: skip
        return {"kind": "files", "tree": tree, "config": {}}


def _scaled(files: Files, key: str, factor: float) -> float | None:
    value = integer(files, key)
    return None if value is None else value * factor


def _name(chip: str, chips: list[str], files: Files) -> str:
    return INPUT if chips == [chip] and THOR in (text(files, "model") or "") else f"ina238-{chip}"

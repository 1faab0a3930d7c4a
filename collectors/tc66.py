"""Ruideng TC66 and TC66C USB meters, over their USB serial port: voltage, current and power, asked some times a second."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.collectors import _tc66
from melt_stream.collectors._asked_serial import AskedPort
from melt_stream.collectors._usb_meter import Accuracy, Told, UsbMeter
from melt_stream.errors import DeviceError
from melt_stream.stream import Column, Stream
from melt_stream.units import ONE, A, Unit, V, W

_CHARGE, _ENERGY = Column(Unit("mA.h"), pa.int64()), Column(Unit("mW.h"), pa.int64())
USB = Stream(
    "usb", volts=V, amps=A, watts=W, d_plus=V, d_minus=V, temperature=ONE, charge_0=_CHARGE, energy_0=_ENERGY,
    charge_1=_CHARGE, energy_1=_ENERGY, repeat=bool,
)  # fmt: skip
"""``temperature`` is in degC or degF, as its display is set; charge and energy are the meter's own two totals;
``repeat``: all is as in the answer before."""
ACCURACY = Accuracy(
    volts_gain=0.0005, amps_gain=0.001, amps_digits=5e-5, watts_step=1e-4,
    source="0.05 % of the voltage, 0.1 % + 5 digits of the current, taken as limits: knowledge of what the maker states; the "
    "data sheet was not at hand",
)  # fmt: skip
MEASURES, BOOTS = b"firm", b"boot"


@dataclass
class Tc66(UsbMeter):
    """Asks for the newest values until cancelled; see :class:`UsbMeter` for what becomes of failures."""

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20)] = 5.0
    timeout_s: Annotated[float, Gt(0), Le(5)] = 0.5

    stream: ClassVar[Stream] = USB
    what: ClassVar[str] = "TC66"
    baud: ClassVar[int] = 115200
    request: ClassVar[bytes] = b"getva"
    size: ClassVar[int] = _tc66.ANSWER

    def clear(self, port: AskedPort) -> None:
        """Ask for its mode: that answer comes after all others."""
        if port.until(b"query", (MEASURES, BOOTS)) == BOOTS:
            raise DeviceError(
                f"{port.path}: expected a TC66 that measures, got one in its boot loader; restart it"
            )

    def told(self, answer: bytes) -> Told:
        return _tc66.told(answer)

    def accuracy(self, _: Told) -> Accuracy:
        return ACCURACY

    @staticmethod
    def example() -> dict[str, Any]:
        """Run it on the emulator."""
        return {"kind": "emulator", "emulator": "tc66", "config": {"port": "{port}", "hz": 20.0}}

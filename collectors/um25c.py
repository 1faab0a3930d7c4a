"""Ruideng UM24C, UM25C and UM34C USB meters, over Bluetooth as a serial port: asked twice a second."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.collectors import _um25c
from melt_stream.collectors._asked_serial import AskedPort
from melt_stream.collectors._usb_meter import Accuracy, Told, UsbMeter
from melt_stream.errors import DeviceError
from melt_stream.stream import Column, Stream
from melt_stream.units import CELSIUS, A, Unit, V, W

USB = Stream(
    "usb", volts=V, amps=A, watts=W, d_plus=V, d_minus=V, mode=int, celsius=CELSIUS, group=int,
    charge=Column(Unit("mA.h"), pa.int64()), energy=Column(Unit("mW.h"), pa.int64()), repeat=bool,
)  # fmt: skip
"""``mode`` is the charging mode that it sees (0: unknown); ``charge`` and ``energy`` are the meter's own totals of the data
group that is selected on its display; ``repeat``: all is as in the answer before."""
_STATED = "taken as limits: knowledge of what the maker states; the data sheet was not at hand"
ACCURACY = {
    "UM24C": Accuracy(0.005, 0.008, 3e-3, 1e-3, f"0.5 % of the voltage, 0.8 % + 3 digits of the current, {_STATED}"),
    "UM25C": Accuracy(
        0.0005, 0.001, 4e-4, 1e-3,
        "0.05 % of the voltage, 0.1 % + 4 digits of the current, taken as limits: the maker's figures as davatorium/um25c-client "
        "quotes them; the data sheet was not at hand",
    ),
    "UM34C": Accuracy(0.005, 0.008, 3e-3, 1e-3, f"0.5 % of the voltage, 0.8 % + 3 digits of the current, {_STATED}"),
}  # fmt: skip


@dataclass
class Um25c(UsbMeter):
    """Asks for the newest values until cancelled; see :class:`UsbMeter` for what becomes of failures."""

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(10)] = 2.0
    model: Literal["", "UM24C", "UM25C", "UM34C"] = ""
    """The model that is expected; by default, whichever it says it is."""

    stream: ClassVar[Stream] = USB
    what: ClassVar[str] = "UM25C"
    baud: ClassVar[int] = 9600
    request: ClassVar[bytes] = _um25c.REQUEST
    size: ClassVar[int] = _um25c.ANSWER

    def clear(self, port: AskedPort) -> None:
        """Wait as long as an answer may take: nothing that it could be asked tells an old answer from a new one."""
        port.settle(self.timeout_s)

    def told(self, answer: bytes) -> Told:
        told = _um25c.told(answer)
        if self.model and told.meter != self.model:
            raise DeviceError(f"expected a {self.model}, got a {told.meter}; change model")
        return told

    def accuracy(self, told: Told) -> Accuracy:
        return ACCURACY[told.meter]

    @staticmethod
    def example() -> dict[str, Any]:
        """Run it on the emulator."""
        config = {"port": "{port}", "hz": 10.0, "timeout_s": 0.5}
        return {"kind": "emulator", "emulator": "um25c", "config": config}

"""What a Ruideng UM24C, UM25C or UM34C answers to the byte 0xF0: 130 bytes, big-endian; no I/O.

Sources: sigrok's wiki (RDTech_UM_series) and its driver, rfinnie/rdserialtool, kolinger/rd-usb (facts only).
"""

from __future__ import annotations

import struct
from functools import reduce
from operator import xor
from typing import NamedTuple

from melt_stream.collectors._usb_meter import Told
from melt_stream.errors import DeviceError, Transient

REQUEST, ANSWER = b"\xf0", 130
_HEAD = struct.Struct(">HHHIHHH")
_TAIL = struct.Struct(">HHH")
END = 0xFFF1
"""Last word of the UM24C and UM25C; it checks nothing but where the answer ends."""
CHECKED = (
    1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109, 111, 113, 119,
    121, 127,
)  # fmt: skip
"""Bytes whose exclusive or is the UM34C's last byte."""


class Model(NamedTuple):
    """What differs between the models."""

    name: str
    volts: float
    """A step of the voltage, in V."""
    amps: float


MODELS = {
    0x0963: Model("UM24C", 0.01, 0.001),
    0x09C9: Model("UM25C", 0.001, 0.0001),
    0x0D4C: Model("UM34C", 0.01, 0.001),
}
"""By the answer's first word."""


def checksum(answer: bytes) -> int:
    """The UM34C's: of its first 129 bytes."""
    return reduce(xor, (answer[at] for at in CHECKED))


def told(answer: bytes) -> Told:
    """Read an answer.

    Raises ``DeviceError`` where its first word is no model that we know, ``Transient`` where its length or end is wrong.
    """
    if len(answer) != ANSWER:
        raise Transient(f"expected {ANSWER} bytes, got {len(answer)}")
    code, volts, amps, watts, celsius, _, group = _HEAD.unpack_from(answer)
    model = MODELS.get(code)
    if model is None:
        known = ", ".join(f"{code:04x} ({one.name})" for code, one in MODELS.items())
        raise DeviceError(f"expected an answer that begins with one of {known}, got {code:04x}")
    _check_end(answer, model)
    if group > 9:
        raise Transient(f"{model.name}: expected a data group of 0 to 9, got {group}: damaged")
    plus, minus, mode = _TAIL.unpack_from(answer, 96)
    charge, energy = struct.unpack_from(">II", answer, 16 + 8 * group)
    row = {
        "volts": round(volts * model.volts, 4), "amps": round(amps * model.amps, 5), "watts": watts / 1000,
        "d_plus": plus / 100, "d_minus": minus / 100, "mode": mode, "celsius": celsius, "group": group, "charge": charge,
        "energy": energy,
    }  # fmt: skip
    return Told(model.name, row, {"model": model.name})


def _check_end(answer: bytes, model: Model) -> None:
    said, expected = int.from_bytes(answer[-2:], "big"), END
    if model.name == "UM34C":
        said, expected = answer[-1], checksum(answer)
    if said != expected:
        raise Transient(f"{model.name}: expected {expected:#x} at the end, got {said:#x}: damaged")

"""A Ruideng UM24C, UM25C or UM34C on a pty: the byte 0xF0 is answered by 130 bytes."""

from __future__ import annotations

import struct
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from melt_stream.emulators._asked import Asked

CODES = {"UM24C": 0x0963, "UM25C": 0x09C9, "UM34C": 0x0D4C}
TRAILER = b"\xff\xf1"
XORED = (
    1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109, 111, 113, 119,
    121, 127,
)  # fmt: skip


@dataclass
class Um25c(Asked):
    """One meter. Own faults: ``checksum@1`` sends an answer with a wrong end, ``junk_instead@1`` random bytes as long as
    the answer.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("checksum", "junk_instead")

    _: KW_ONLY
    model: Literal["UM24C", "UM25C", "UM34C"] = "UM25C"
    celsius: int = 31
    group: int = 2
    """The data group that is selected."""

    def split(self, waiting: bytes) -> tuple[bytes, bytes]:
        """Every byte is a command."""
        return waiting[:1], waiting[1:]

    def answer(self, request: bytes, amps: float) -> bytes:
        if request != b"\xf0":
            return b""
        finer = 10 if self.model == "UM25C" else 1
        fahrenheit = round(self.celsius * 1.8 + 32)
        head = struct.pack(
            ">HHHIHHH", CODES[self.model], round(self.volts * 100 * finer), round(amps * 1000 * finer),
            round(self.volts * amps * 1000), self.celsius, fahrenheit, self.group,
        )  # fmt: skip
        totals = [(0, 0)] * 10
        totals[self.group] = int(self.mah), int(self.mwh)
        groups = b"".join(struct.pack(">II", *total) for total in totals)
        lines = struct.pack(">HHH", 275, 268, 7)  # D+ and D- in 10 mV; a dedicated charging port
        recorded = struct.pack(">IIHIH", 0, 0, 5, 0, 0)
        ohms = round(self.volts / amps * 10) if amps > 0 else 0
        screen = struct.pack(">HHIH", 2, 4, ohms, 0)
        return self._ended(head + groups + lines + recorded + screen)

    def _ended(self, body: bytes) -> bytes:
        end = TRAILER
        if self.model == "UM34C":
            last = 0
            for at in XORED:
                last ^= body[at]
            end = bytes([0x80, last])
        if self.faults.due("checksum", self.seconds(), len(self.heard)):
            end = end[:1] + bytes([end[1] ^ 0x40])
        return body + end

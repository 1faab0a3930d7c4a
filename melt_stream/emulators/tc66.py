"""A Ruideng TC66 on a pty: ``getva`` is answered by three encrypted packets, ``query`` by its mode."""

from __future__ import annotations

import struct
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from melt_stream.emulators._asked import Asked

KEY = bytes.fromhex("5821fa5601b2f02687ff1204622a4fb086f40260816f9a0ba7f106619ab87288")
COMMANDS = (b"query", b"getva", b"lastp", b"nextp", b"rotat")
LENGTH = 5
POLYNOMIAL = 0xA001


@dataclass
class Tc66(Asked):
    """One meter. Own faults: ``checksum@1`` sends an answer with a wrong one, ``key@1`` one under another key,
    ``junk_instead@1`` random bytes as long as the answer.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("checksum", "key", "junk_instead")

    _: KW_ONLY
    serial_number: int = 4711
    runs: int = 3
    temperature: int = 29
    """As its display has it, negative below 0."""
    boots: bool = False
    """It is in its boot loader, and measures nothing."""

    def split(self, waiting: bytes) -> tuple[bytes, bytes]:
        """Commands have no end mark; what begins none is passed over."""
        while len(waiting) >= LENGTH:
            if waiting[:LENGTH] in COMMANDS:
                return waiting[:LENGTH], waiting[LENGTH:]
            waiting = waiting[1:]
        return b"", waiting

    def answer(self, request: bytes, amps: float) -> bytes:
        if request == b"query":
            return b"boot" if self.boots else b"firm"
        if request != b"getva" or self.boots:
            return b""
        due, asked = self.seconds(), len(self.heard)
        key = bytes(32) if self.faults.due("key", due, asked) else KEY
        plain = b"".join(map(_sealed, (self._first(amps), self._second(), b"pac3")))
        if self.faults.due("checksum", due, asked):
            plain = plain[:50] + bytes([plain[50] ^ 1]) + plain[51:]
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the meter's choice
        return encryptor.update(plain) + encryptor.finalize()

    def _first(self, amps: float) -> bytes:
        numbers = (self.runs, round(self.volts * 1e4), round(amps * 1e5), round(self.volts * amps * 1e4))
        return struct.pack("<4s4s4sI28xIIII", b"pac1", b"TC66", b"1.18", self.serial_number, *numbers)

    def _second(self) -> bytes:
        ohms = round(self.volts / self._amps * 100) if self._amps > 0 else 0
        group = (int(self.mah), int(self.mwh))
        heat = (int(self.temperature < 0), abs(self.temperature))
        return struct.pack("<4s9I", b"pac2", ohms, *group, *group, *heat, 60, 270)


def _sealed(packet: bytes) -> bytes:
    """Fill a packet up and add its CRC-16/MODBUS."""
    packet = packet.ljust(60, b"\0")
    crc = 0xFFFF
    for bit in (byte >> k & 1 for byte in packet for k in range(8)):
        crc = crc >> 1 ^ (POLYNOMIAL if (crc ^ bit) & 1 else 0)
    return packet + struct.pack("<I", crc)

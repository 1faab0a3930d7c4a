"""What a Ruideng TC66 or TC66C answers to ``getva``: three packets of 64 bytes, encrypted; no I/O.

Source: sigrok's wiki (RDTech_TC66C) and PyPI tc66-serial 1.0.1; numbers are unsigned, of 32 bits, little-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from melt_stream.collectors._usb_meter import Told
from melt_stream.errors import DeviceError, Transient

KEY = bytes.fromhex("5821fa5601b2f02687ff1204622a4fb086f40260816f9a0ba7f106619ab87288")
"""The same in every meter, and public: it keeps no secret."""
PACKET, ANSWER = 64, 192
NAMES = (b"pac1", b"pac2", b"pac3")
_FIRST = struct.Struct("<4s4s4sI28xIIII")
_SECOND = struct.Struct("<4sIIIIIIIII")
AES = Cipher(algorithms.AES(KEY), modes.ECB())  # noqa: S305 - the meter's choice


class Checked(NamedTuple):
    """The packets of an answer, in their order."""

    first: bytes
    second: bytes
    third: bytes


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0x8005 reflected, from 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def packets(answer: bytes) -> Checked:
    """Decrypt an answer and check each packet.

    Raises ``DeviceError`` where not one packet is what its place demands (another key, another device), ``Transient`` where
    one is damaged.
    """
    if len(answer) != ANSWER:
        raise Transient(f"expected {ANSWER} bytes, got {len(answer)}")
    decryptor = AES.decryptor()
    plain = decryptor.update(answer) + decryptor.finalize()
    parts = [plain[at : at + PACKET] for at in range(0, ANSWER, PACKET)]
    named = [part.startswith(name) for part, name in zip(parts, NAMES, strict=True)]
    if not any(named):
        raise DeviceError(
            f"expected packets pac1, pac2 and pac3 under the key of the TC66, got {plain[:4].hex()}...; "
            "is it a TC66, and is its key the known one?"
        )
    for number, part in enumerate(parts, 1):
        said, found = int.from_bytes(part[60:], "little"), crc16(part[:60])
        if not named[number - 1] or said != found:
            raise Transient(f"pac{number}: expected checksum {found:#06x} in it, got {said:#x}: damaged")
    return Checked(*parts)


def told(answer: bytes) -> Told:
    """Read an answer; raises what :func:`packets` does."""
    first, second, _ = packets(answer)
    _, product, version, serial, runs, volts, amps, watts = _FIRST.unpack_from(first)
    _, _, charge_0, energy_0, charge_1, energy_1, below, temperature, plus, minus = _SECOND.unpack_from(
        second
    )
    row = {
        "volts": volts / 1e4, "amps": amps / 1e5, "watts": watts / 1e4, "d_plus": plus / 100, "d_minus": minus / 100,
        "temperature": -temperature if below == 1 else temperature, "charge_0": charge_0, "energy_0": energy_0,
        "charge_1": charge_1, "energy_1": energy_1,
    }  # fmt: skip
    name = _text(product)
    return Told(f"{name} {serial}", row, {
        "product": name, "firmware": _text(version), "serial_number": serial, "runs": runs,
    })  # fmt: skip


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("ascii", "replace").strip()

"""A talk with a KM003C over its bulk endpoints: who it is, the handshake, start and stop, the queue. It blocks.

What is encrypted (reading its memory, the handshake that unlocks the queue) is PyPI km003c's.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from melt_stream.clock import Now
from melt_stream.collectors import _km003c as wire
from melt_stream.collectors._km003c_usb import WITHOUT, Usb
from melt_stream.errors import DeviceError, Transient

STRAY = 8
"""Answers to earlier questions that are passed over."""
CONNECTS = 3
"""It may answer the first Connect with Disconnect."""


def library() -> Any:
    """Import the parser package. Raises ``DeviceError`` where it is missing."""
    try:
        return importlib.import_module("km003c")
    except ImportError as exc:
        raise DeviceError(WITHOUT.format(exc)) from exc


class Answer(NamedTuple):
    """What came, and between which two looks at the host's clock."""

    asked: int
    answered: int
    frame: wire.Frame


@dataclass
class Link:
    """Questions and answers; each has a number."""

    usb: Usb
    now: Now
    number: int = 0

    def connect(self) -> dict[str, Any]:
        """Greet it, unlock its queue, and return who it is.

        Raises ``DeviceError`` where it refuses, ``Transient`` where it does not answer.
        """
        for attempt in range(CONNECTS):
            if self._ask(wire.CONNECT).frame.kind == wire.ACCEPT:
                break
            if attempt == CONNECTS - 1:
                raise DeviceError(
                    "KM003C: expected it to accept a connection, got a refusal; plug it in again"
                )
        lib = library()
        info, firmware = (
            self._memory(address, lib.INFO_BLOCK_SIZE)
            for address in (lib.ADDR_DEVICE_INFO, lib.ADDR_FIRMWARE_INFO)
        )
        identity = self._memory(lib.ADDR_HARDWARE_ID, lib.HARDWARE_ID_SIZE)
        self._unlock(identity)
        return {
            "model": _text(info[0x10:0x1C]), "hardware": _text(info[0x1C:0x28]), "firmware": _text(firmware[0x1C:0x28]),
            "hardware_id": identity.hex(),
        }  # fmt: skip

    def start(self, hz: int) -> None:
        """Begin to queue samples, after an end to what another program began."""
        self.stop()
        self._command(wire.START_GRAPH, wire.RATES[hz])

    def stop(self) -> None:
        """Queue no more."""
        self._command(wire.STOP_GRAPH)

    def queue(self) -> Answer:
        """Ask for the samples since the last time."""
        return self._ask(wire.GET_DATA, wire.QUEUE)

    def _command(self, kind: int, attribute: int = 0) -> None:
        answer = self._ask(kind, attribute).frame
        if answer.kind != wire.ACCEPT:
            raise DeviceError(
                f"KM003C: expected it to accept command {kind:#04x}, got {answer.data[:8].hex()}"
            )

    def _ask(self, kind: int, attribute: int = 0) -> Answer:
        number = self._next()
        return self._exchange(wire.request(kind, number, attribute), number)

    def _next(self) -> int:
        self.number = (self.number + 1) % 256
        return self.number

    def _exchange(self, packet: bytes, number: int) -> Answer:
        asked = self.now()
        self.usb.write(packet)
        for _ in range(STRAY):
            data = self.usb.read()
            answered = self.now()
            frame = wire.frame(data)
            if frame.number == number:
                return Answer(asked, answered, frame)
        raise Transient(f"KM003C: expected the answer to question {number}, got {STRAY} others")

    def _memory(self, address: int, size: int) -> bytes:
        lib, number = library(), self._next()
        confirmed = self._exchange(lib.build_memory_read_packet(address, size, number), number).frame
        try:
            told = lib.parse_memory_read_confirmation(confirmed.data)
        except ValueError as exc:
            raise Transient(f"KM003C: expected to read its memory at {address:#x}, got {exc}") from exc
        if told != (address, size):
            raise DeviceError(
                f"KM003C: expected {size} bytes of memory at {address:#x}, got {confirmed.data[:8].hex()}; is its firmware known?"
            )
        encrypted, wanted = b"", -(-size // 16) * 16
        while len(encrypted) < wanted:
            encrypted += self.usb.read()
        return bytes(lib.decrypt_memory_payload(encrypted[:wanted]))[:size]

    def _unlock(self, identity: bytes) -> None:
        lib = library()
        self.usb.write(lib.build_streaming_auth_packet(identity, self._next()))
        data = self.usb.read()  # its answer has the number 0
        told = lib.parse_streaming_auth_response(data)
        if not told or not told["success"]:
            raise DeviceError(
                f"KM003C: expected it to unlock its queue, got {data[:4].hex()}; is its firmware known to PyPI km003c?"
            )


def _text(data: bytes) -> str:
    return data.split(b"\0")[0].decode("ascii", "replace").strip("\xff ")

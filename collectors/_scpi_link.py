"""A line of SCPI: text ended by LF to an instrument and back, over a raw TCP socket or a serial port. It blocks."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import serial

from melt_stream.errors import DeviceError, Transient

LONGEST = 1 << 16
"""Bytes of an answer, at most."""
QUEUE_LIMIT = 64
"""Errors read from a queue at once; instruments hold about 20."""
ERROR = re.compile(r'\s*([+-]?\d{1,5})\s*(?:,\s*"?([^"]*)"?.*)?')


class Wire(Protocol):
    """What bytes go through."""

    def send(self, data: bytes) -> None:
        """Send all; ``OSError``."""

    def receive(self) -> bytes:
        """Wait for some bytes, at most as long as the time limit; none where none came. ``OSError``."""

    def close(self) -> None:
        """End it, also under somebody who waits in ``receive``."""


@dataclass
class TcpWire:
    """A raw socket, as ``TCPIP::host::5025::SOCKET``."""

    host: str
    port: int
    timeout_s: float

    def __post_init__(self) -> None:
        self._socket = socket.create_connection((self.host, self.port), timeout=self.timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        try:
            data = self._socket.recv(4096)
        except TimeoutError:
            return b""
        if not data:
            raise ConnectionResetError("it closed the connection")
        return data

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@dataclass
class SerialWire:
    """An RS-232 or USB-CDC port, as ``ASRL/dev/ttyUSB0::INSTR``."""

    path: str
    baud: int
    timeout_s: float

    def __post_init__(self) -> None:
        self._port = serial.Serial(
            self.path, self.baud, timeout=self.timeout_s, write_timeout=self.timeout_s, exclusive=True
        )

    def send(self, data: bytes) -> None:
        self._port.write(data)

    def receive(self) -> bytes:
        return bytes(self._port.read(max(1, self._port.in_waiting)))

    def close(self) -> None:
        with suppress(OSError, TypeError):
            self._port.cancel_read()
        self._port.close()


@dataclass
class Link:
    """Commands and queries over a wire."""

    wire: Wire
    name: str
    """What messages call the instrument's address."""
    timeout_s: float
    _rest: bytes = field(default=b"", init=False)

    def write(self, command: str) -> None:
        """Send a command. Raises ``Transient`` where the line is broken."""
        try:
            self.wire.send(command.encode("ascii") + b"\n")
        except (OSError, TypeError) as exc:  # TypeError: pyserial's, of a port closed meanwhile
            raise Transient(f"{self.name}: expected to send {command!r}, got {exc}") from exc

    def query(self, command: str) -> str:
        """Send a query and return its answer. Raises ``Transient`` where none comes in time, or not as text."""
        self.write(command)
        return self.answer(command)

    def answer(self, command: str) -> str:
        """Return the next line."""
        while b"\n" not in self._rest:
            try:
                data = self.wire.receive()
            except (OSError, TypeError) as exc:
                raise Transient(f"{self.name}: expected an answer to {command!r}, got {exc}") from exc
            if not data:
                raise Transient(
                    f"{self.name}: expected an answer to {command!r} within {self.timeout_s:g} s, got {self._rest[:60]!r}"
                )
            self._rest += data
            if len(self._rest) > LONGEST:
                raise Transient(
                    f"{self.name}: expected a line as answer to {command!r}, got {LONGEST} bytes and no end"
                )
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            return line.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise Transient(
                f"{self.name}: expected text as answer to {command!r}, got {line[:60]!r}"
            ) from exc

    def errors(self) -> list[tuple[int, str]]:
        """Read the error queue until it is empty: ``SYST:ERR?`` until 0."""
        found: list[tuple[int, str]] = []
        while len(found) < QUEUE_LIMIT:
            answer = self.query("SYST:ERR?")
            match = ERROR.fullmatch(answer)
            if match is None:
                raise Transient(f'{self.name}: expected CODE,"text" from SYST:ERR?, got {answer[:80]!r}')
            if not (code := int(match[1])):
                return found
            found.append((code, match[2] or ""))
        raise DeviceError(
            f"{self.name}: expected its error queue to end, got {QUEUE_LIMIT}, the last {found[-1]}"
        )


def said(errors: list[tuple[int, str]]) -> str:
    """Return errors as text."""
    return "; ".join(f'{code},"{text}"' for code, text in errors)

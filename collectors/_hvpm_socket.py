"""The black Monsoon's transfers over a TCP connection: how another process reaches the emulated box, as there is no USB gadget.

A request is a head (``HEAD``, little-endian): kind (u8), request (u8), value (u16), index (u16), length (u32);
then, for ``OUT`` only, ``length`` bytes. For ``BULK``, ``value`` is the time limit in ms. The answer is a status
(u8), a length (u32) and as many bytes: what was read, or why it was refused.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from melt_stream.collectors._hvpm_link import Gone, Refused, Silent
from melt_stream.errors import ConfigError, Transient

SCHEME = "emulator:"
HEAD = struct.Struct("<BBHHI")
ANSWER = struct.Struct("<BI")
OUT, IN, BULK = 1, 2, 3
DONE, SILENT, GONE, REFUSED = 0, 1, 2, 3
LIMIT = 1 << 20
"""Bytes of one transfer."""
SLACK_S = 5.0
"""How much longer than the transfer itself its answer may take."""


def open_socket(address: str) -> Socket:
    """Connect to ``emulator:HOST:PORT``; raises ``ConfigError`` for another form, ``Transient`` where nobody listens."""
    host, colon, port = address.removeprefix(SCHEME).rpartition(":")
    if not colon or not port.isdigit() or int(port) >= 1 << 16:
        raise ConfigError(f"port: expected {SCHEME}HOST:PORT, got {address!r}")
    try:
        connection = socket.create_connection((host, int(port)), SLACK_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as exc:
        raise Transient(
            f"{address}: expected an emulated box, got: {exc}; `melt-stream emulate monsoon_hvpm` is one"
        ) from exc
    return Socket(connection, address)


@dataclass
class Socket:
    """The client's end."""

    connection: socket.socket
    name: str

    def control_out(self, request: int, value: int, index: int, data: bytes) -> None:
        self._transfer(HEAD.pack(OUT, request, value, index, len(data)) + data)

    def control_in(self, request: int, value: int, index: int, size: int) -> bytes:
        return self._transfer(HEAD.pack(IN, request, value, index, size))

    def bulk_read(self, size: int, seconds: float) -> bytes:
        limit = min(0xFFFF, max(1, round(seconds * 1000)))
        return self._transfer(HEAD.pack(BULK, 0, limit, 0, size), seconds)

    def close(self) -> None:
        self.connection.close()

    def _transfer(self, request: bytes, seconds: float = 0.0) -> bytes:
        try:
            self.connection.settimeout(seconds + SLACK_S)
            self.connection.sendall(request)
            status, size = ANSWER.unpack(self._exactly(ANSWER.size))
            data = self._exactly(min(size, LIMIT))
        except OSError as exc:
            raise Gone(str(exc)) from exc
        if status == SILENT:
            raise Silent
        if status == GONE:
            raise Gone(data.decode(errors="replace"))
        if status == REFUSED:
            raise Refused(data.decode(errors="replace"))
        return data

    def _exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            if not (some := self.connection.recv(size - len(got))):
                raise Gone("the connection ended")
            got += some
        return bytes(got)

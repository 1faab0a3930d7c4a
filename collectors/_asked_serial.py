"""A meter on a serial port that answers each request with as many bytes, asked in the poller's thread. It blocks."""

from __future__ import annotations

import termios
from contextlib import suppress
from dataclasses import dataclass, field

import serial

from melt_stream.collectors._serial import opened
from melt_stream.errors import DeviceError, Transient

QUIET_S = 0.05
"""Bytes of one burst come closer together than this."""
BROKEN = (OSError, TypeError, termios.error)
"""What pyserial raises of a port that is gone; ``TypeError`` of one that another thread closed meanwhile."""


@dataclass
class AskedPort:
    """Requests and answers of a fixed length. After a failure the port is to be closed and opened anew."""

    path: str
    baud: int
    timeout_s: float
    _port: serial.Serial | None = field(default=None, init=False, repr=False)
    _ended: bool = field(default=False, init=False, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return self._port is not None

    def open(self) -> None:
        """Open the port for us alone; raises ``Transient`` or ``DeviceError`` as :mod:`_serial` does."""
        self._port = opened(self.path, self.baud, timeout=self.timeout_s, write_timeout=self.timeout_s)
        if self._ended:  # meanwhile
            self.close()

    def end(self) -> None:
        """Let go of the port for good; also under a read that waits in another thread."""
        self._ended = True
        self.close()

    def close(self) -> None:
        """Let go of the port."""
        port, self._port = self._port, None
        if port is not None:
            with suppress(*BROKEN):
                port.cancel_read()
            port.close()

    def ask(self, request: bytes, length: int) -> bytes:
        """Send a request, return its answer.

        Raises ``Transient`` where bytes were there that nobody had asked for (an answer is late, or the line is noisy: no
        byte could be told from another's), where the answer is shorter or longer, and where the port is gone.
        """
        try:
            unasked = self._some(0)
            if unasked:
                raise Transient(f"{self.path}: expected silence before {request!r}, got {len(unasked)} bytes")
            self._open_port().write(request)
            answer = bytes(self._open_port().read(length))
            longer = self._some(0)
        except BROKEN as exc:
            raise self._gone(exc) from exc
        if len(answer) < length:
            raise Transient(
                f"{self.path}: expected {length} bytes in answer to {request!r} within {self.timeout_s:g} s, got {len(answer)}; "
                "is it on, and not in a menu?"
            )
        if longer:
            raise Transient(f"{self.path}: expected {length} bytes, got {length + len(longer)}")
        return answer

    def settle(self, quiet_s: float, limit_s: float = 5.0) -> None:
        """Throw away what still comes until nothing did for ``quiet_s``.

        Raises ``DeviceError`` where it goes on for longer than ``limit_s``: something streams.
        """
        silent = 0.0
        for _ in range(round((quiet_s + limit_s) / QUIET_S)):
            silent = 0.0 if self._arrived(QUIET_S) else silent + QUIET_S
            if silent >= quiet_s - QUIET_S / 2:
                return
        raise DeviceError(f"{self.path}: expected silence, got bytes for {limit_s:g} s; is it another meter?")

    def until(self, request: bytes, ends: tuple[bytes, ...]) -> bytes:
        """Ask, and throw away what comes before the answer, one of ``ends``: what was asked before has been answered then.

        Raises ``Transient`` where nothing comes for ``timeout_s``, or only something else.
        """
        self.send(request)
        last, silent, size = b"", 0.0, max(map(len, ends))
        for _ in range(round(10 * self.timeout_s / QUIET_S)):
            some = self._arrived(QUIET_S)
            last, silent = (last + some)[-size:], 0.0 if some else silent + QUIET_S
            if last.endswith(ends):
                return last
            if silent >= self.timeout_s:
                break
        said = " or ".join(repr(end) for end in ends)
        raise Transient(
            f"{self.path}: expected {said} in answer to {request!r}, got {last!r}; is it this meter, and on?"
        )

    def send(self, request: bytes) -> None:
        """Send without waiting for an answer. Raises ``Transient`` where the port is gone."""
        try:
            self._open_port().write(request)
        except BROKEN as exc:
            raise self._gone(exc) from exc

    def _arrived(self, wait_s: float) -> bytes:
        try:
            return self._some(wait_s)
        except BROKEN as exc:
            raise self._gone(exc) from exc

    def _some(self, wait_s: float) -> bytes:
        """What has come; where nothing has, wait for it so long."""
        port = self._open_port()
        if not port.in_waiting and wait_s:
            port.timeout = wait_s
            try:
                first = bytes(port.read(1))
            finally:
                port.timeout = self.timeout_s
            return first + bytes(port.read(port.in_waiting)) if first else b""
        return bytes(port.read(port.in_waiting))

    def _open_port(self) -> serial.Serial:
        if self._port is None:
            raise OSError("the port was closed")
        return self._port

    def _gone(self, exc: BaseException) -> Transient:
        return Transient(f"{self.path}: expected to ask the meter, got {exc}; was it unplugged?")

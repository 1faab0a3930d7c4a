"""Serial ports: found by USB ids, opened for one owner, read in large blocks under Trio, with clear errors."""

from __future__ import annotations

import errno
import os
import termios
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

import serial
import trio
from serial.tools import list_ports

from melt_stream.clock import Now, monotonic
from melt_stream.collector import Health
from melt_stream.errors import DeviceError, Transient

BLOCK = 1 << 16
COALESCE_S = 0.004
"""How long bytes may gather before they are read. A pty holds 4095 of them: at 400 kB/s that is 10 ms."""
UNPLUGGED = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF})

UsbId = tuple[int, int]
"""Vendor and product."""


class Found(NamedTuple):
    """A serial port that the system lists."""

    path: str
    product: str
    serial_number: str
    location: str
    """Bus, hub ports and interface, as ``1-2:1.0``."""


class Block(NamedTuple):
    """Bytes, and the host's time when they had been read."""

    data: bytes
    arrival: int


def found(ids: Collection[UsbId], product: str = "") -> list[Found]:
    """Return the ports whose USB vendor and product are among ``ids`` and whose product text contains ``product``."""
    return [
        Found(port.device, port.product or "", port.serial_number or "", port.location or "")
        for port in sorted(list_ports.comports(), key=lambda port: (port.location or "", port.device))
        if (port.vid, port.pid) in ids and product.lower() in (port.product or port.description or "").lower()
    ]


def health(what: str, ids: Collection[UsbId], port: str = "", product: str = "") -> Health:
    """What doctor says: whether the configured port, or one found by its USB ids, is there and may be opened."""
    ports = [port] if port else [one.path for one in found(ids, product)]
    if not ports:
        known = ", ".join(f"{vendor:04x}:{number:04x}" for vendor, number in sorted(ids))
        return Health(False, f"no {what} on USB ({known})", "plug it in, or name its port = '/dev/tty...'")
    if not os.path.exists(ports[0]):  # noqa: PTH110 - one stat of a device node
        return Health(False, f"{ports[0]} is not there", "plug it in; `ls /dev/ttyACM* /dev/ttyUSB*`")
    if not os.access(ports[0], os.R_OK | os.W_OK):
        return Health(False, f"{ports[0]} may not be opened by this user", _cure_access())
    return Health(True, f"{what} at {', '.join(ports)}")


def the_port(what: str, ids: Collection[UsbId], port: str = "", product: str = "") -> str:
    """Return ``port``, or the only one found by its USB ids. Raises ``DeviceError`` where none or several are there."""
    if port:
        return port
    ports = found(ids, product)
    if len(ports) == 1:
        return ports[0].path
    there = ", ".join(f"{one.path} ({one.serial_number or one.location})" for one in ports) or "none"
    raise DeviceError(f"expected one {what} on USB, got {there}; say which with port = '/dev/tty...'")


@dataclass
class Port:
    """An open port; only the Trio thread uses it."""

    path: str
    fd: int
    now: Now = monotonic
    coalesce_s: float = COALESCE_S

    async def read(self, patience_s: float | None = None) -> Block:
        """Wait for bytes and return what has gathered; after the first call at most every ``coalesce_s``.

        Raises ``Transient`` where nothing came within ``patience_s``, or the port was unplugged.
        """
        if self.coalesce_s:
            await trio.sleep(self.coalesce_s)
        if data := self._read():  # at a high rate there always is something: one turn of the loop saved
            if not self.coalesce_s:
                await trio.lowlevel.checkpoint()
            return Block(data, self.now())
        with trio.move_on_after(patience_s if patience_s is not None else float("inf")):
            while not data:
                await trio.lowlevel.wait_readable(self.fd)
                data = self._read(ready=True)
            return Block(data, self.now())
        raise Transient(
            f"{self.path}: expected bytes within {patience_s:g} s, got none; is it on, and in the mode that streams?"
        )

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.fd)
            except OSError as exc:
                raise self._gone(exc) from exc
        await trio.lowlevel.checkpoint()

    async def drain(self, quiet_s: float = 0.1, limit_s: float = 3.0) -> int:
        """Throw away what comes until nothing did for ``quiet_s``; return how many bytes that were.

        Raises ``DeviceError`` where it is not quiet within ``limit_s``: something still streams.
        """
        thrown, quiet = self._discard(), False
        with trio.move_on_after(limit_s):
            while not quiet:
                with trio.move_on_after(quiet_s) as waiting:
                    await trio.lowlevel.wait_readable(self.fd)
                    thrown += len(self._read(ready=True))
                quiet = waiting.cancelled_caught
        if not quiet:
            raise DeviceError(
                f"{self.path}: expected silence after the stop command, got {thrown} bytes in {limit_s:g} s; "
                "is it another instrument, or does another program start it?"
            )
        return thrown

    def _discard(self) -> int:
        thrown = 0
        while data := self._read():
            thrown += len(data)
            if thrown > 64 * BLOCK:
                break  # it comes as fast as it is read: the loop that can be cancelled goes on
        return thrown

    def _read(self, *, ready: bool = False) -> bytes:
        try:
            data = os.read(self.fd, BLOCK)
        except BlockingIOError:
            return b""
        except OSError as exc:
            raise self._gone(exc) from exc
        if ready and not data:
            raise self._gone()
        return data

    def _gone(self, exc: OSError | None = None) -> Transient:
        if exc is None or exc.errno in UNPLUGGED:
            return Transient(f"{self.path}: expected bytes, got the end of the port; was it unplugged?")
        return Transient(f"{self.path}: expected to read and write, got {exc}")


@asynccontextmanager
async def open_port(
    path: str,
    *,
    baud: int = 115200,
    coalesce_s: float = COALESCE_S,
    now: Now = monotonic,
    **settings: object,
) -> AsyncIterator[Port]:
    """Open a port for us alone, raw, for the time of the body; ``settings`` are pyserial's (parity, stopbits, ...).

    Raises ``Transient`` where it is not there (a cable may be plugged in again) and ``DeviceError`` where another
    program has it or this user may not open it.
    """
    port = opened(path, baud, timeout=0, write_timeout=0, **settings)
    try:
        yield Port(path, port.fileno(), now, coalesce_s)
    finally:
        port.close()


def opened(path: str, baud: int, **settings: object) -> serial.Serial:
    """Open a port for us alone, for those who block on it in a thread; raises what :func:`open_port` does."""
    try:
        return serial.Serial(path, baud, exclusive=True, **settings)  # type: ignore[arg-type]
    except (serial.SerialException, termios.error, OSError, ValueError) as exc:
        raise _refused(path, exc) from exc


def _refused(path: str, exc: Exception) -> DeviceError:
    number = getattr(exc, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY):
        return DeviceError(
            f"{path}: expected a free port, but another program has it open{_who(path)}; end that one"
        )
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError(f"{path}: expected to open it, got: this user may not; {_cure_access()}")
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO):
        return Transient(f"{path}: expected a serial port, got: {os.strerror(number)}; is it plugged in?")
    return DeviceError(f"{path}: expected a serial port, got: {exc}")


def _cure_access() -> str:
    return "add it to the port's group (`sudo usermod -aG dialout $USER`, then log in again)"


def _who(path: str) -> str:
    """Name the processes that hold a port open, as far as /proc lets us look."""
    holders = sorted({name for pid, name in _holders(os.path.realpath(path)) if pid != os.getpid()})
    return f" ({', '.join(holders)})" if holders else ""


def _holders(path: str) -> Iterable[tuple[int, str]]:
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):  # noqa: PTH112, PTH208
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
            if path in links:
                with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:  # noqa: PTH123
                    yield int(pid), f"{comm.read().strip()}, process {pid}"
        except OSError:
            continue  # it ended, or it is another user's

"""The KM003C's bulk endpoints, through pyusb; what else can stand in for them has the same two calls. It blocks."""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from melt_stream.errors import DeviceError, Transient

VENDOR, PRODUCT = 0x5FC9, 0x0063
INTERFACE, OUT, IN = 0, 0x01, 0x81
LARGEST = 1 << 15
TIMEOUT_MS = 500
STALE_MS = 50
WITHOUT = "expected the packages of the extra km003c, got: {}; try: pip install 'melt-stream[km003c]'"
ACCESS = (
    'a udev rule with SUBSYSTEM=="usb", ATTRS{idVendor}=="5fc9", ATTRS{idProduct}=="0063", TAG+="uaccess"'
)


class Usb(Protocol):
    """The seam: bulk write and bulk read."""

    def write(self, data: bytes) -> None:
        """Send one packet."""

    def read(self) -> bytes:
        """Return the next transfer that comes. Raises ``Transient`` where none does in time, or the meter is gone."""

    def close(self) -> None:
        """Let go of it."""


@dataclass
class Bulk:
    """A meter that is plugged in."""

    device: Any
    detached: bool = False
    """The kernel's driver had it, and is to have it again."""

    def write(self, data: bytes) -> None:
        self._do(self.device.write, OUT, data, TIMEOUT_MS)

    def read(self) -> bytes:
        return bytes(self._do(self.device.read, IN, LARGEST, TIMEOUT_MS))

    def throw_away(self) -> None:
        """Read what an earlier program left unread."""
        import usb.core

        try:
            while self.device.read(IN, LARGEST, STALE_MS):
                pass
        except usb.core.USBError:
            return

    def close(self) -> None:
        import usb.core
        import usb.util

        usb.util.dispose_resources(self.device)
        if self.detached:
            with suppress(usb.core.USBError):  # unplugged
                self.device.attach_kernel_driver(INTERFACE)

    def _do(self, call: Any, *args: Any) -> Any:
        import usb.core

        try:
            return call(*args)
        except usb.core.USBTimeoutError as exc:
            raise Transient(f"KM003C: expected an answer within {TIMEOUT_MS} ms, got none") from exc
        except usb.core.USBError as exc:
            raise refused(exc) from exc


def connect(serial_number: str = "") -> Usb:
    """Open the only meter there is, or the one of this USB serial number, and take it from the kernel's own driver.

    Raises ``DeviceError`` where pyusb or libusb is missing, several meters are there, or another program has it;
    ``Transient`` where there is none.
    """
    import usb.core
    import usb.util

    meters = found()
    if serial_number:
        meters = [one for one in meters if one.serial_number == serial_number]
    if not meters:
        raise Transient(
            f"expected a KM003C {serial_number} on USB, got none; is it plugged in at its side for data?"
        )
    if len(meters) > 1:
        there = ", ".join(str(one.serial_number) for one in meters)
        raise DeviceError(f"expected one KM003C on USB, got {there}; say which with serial_number = ...")
    bulk = Bulk(meters[0])
    try:
        if bulk.device.is_kernel_driver_active(INTERFACE):
            bulk.device.detach_kernel_driver(INTERFACE)
            bulk.detached = True
        usb.util.claim_interface(bulk.device, INTERFACE)
    except usb.core.USBError as exc:
        bulk.close()
        raise refused(exc) from exc
    bulk.throw_away()
    return bulk


def found() -> list[Any]:
    """Return the meters that are plugged in. Raises ``DeviceError`` where nothing can tell."""
    try:
        import usb.core
    except ImportError as exc:
        raise DeviceError(WITHOUT.format(exc)) from exc
    try:
        return list(usb.core.find(find_all=True, idVendor=VENDOR, idProduct=PRODUCT))
    except usb.core.NoBackendError as exc:
        raise DeviceError(f"expected libusb, got: {exc}; try: apt install libusb-1.0-0") from exc


def refused(exc: Any) -> DeviceError:
    """Say what pyusb's error means."""
    match exc.errno:
        case errno.EBUSY:
            return DeviceError(f"KM003C: expected it free, got: {exc}; another program has it; end that one")
        case errno.EACCES | errno.EPERM:
            return DeviceError(f"KM003C: expected to open it, got: this user may not; add {ACCESS}")
        case _:
            return Transient(f"KM003C: expected to talk to it, got: {exc}; was it unplugged?")

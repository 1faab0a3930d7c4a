"""The black Monsoon on USB, through pyusb (extra ``monsoon_hvpm``), which needs the system's libusb."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from melt_stream.collectors._hvpm_link import FROM_BOX, TO_BOX, Gone, Link, Refused, Silent
from melt_stream.errors import DeviceError, Transient

VENDOR, PRODUCT = 0x2AB9, 0x0001
ENDPOINT = 0x81
CONTROL_MS = 5000
WHAT = "Monsoon HVPM"
UDEV = 'SUBSYSTEM=="usb", ATTRS{idVendor}=="2ab9", MODE="0666"'
GONE = {errno.ENODEV, errno.EIO, errno.ENXIO, errno.EPROTO, errno.ESHUTDOWN}
NO_ACCESS = {errno.EACCES, errno.EPERM}

Find = Callable[..., Any]
"""``usb.core.find``, or one that looks elsewhere."""


def serial_numbers(find: Find | None = None) -> list[str]:
    """Return the serial numbers of the boxes on USB; raises ``DeviceError`` where pyusb or libusb is missing."""
    return [_serial(device) for device in _boxes(find)]


def open_usb(serial: str = "", find: Find | None = None) -> Link:
    """Open the only box on USB, or the one of this serial number, for us alone.

    Raises ``DeviceError`` where a package is missing, several boxes are there, another program has it or this user may not open it,
    ``Transient`` where it is not there: a cable may be plugged in again.
    """
    boxes = _boxes(find)
    wanted = [box for box in boxes if not serial or _serial(box) == serial]
    if len(wanted) != 1:
        there = ", ".join(_serial(box) for box in boxes) or "none"
        kind = DeviceError if wanted else Transient
        raise kind(
            f"expected {f'the {WHAT} {serial}' if serial else f'one {WHAT}'} on USB "
            f"({VENDOR:04x}:{PRODUCT:04x}), got {there}; is it on? Say which with port = 'SERIAL NUMBER'"
        )
    (device,) = wanted
    _claim(device)
    return Usb(device, f"{WHAT} {_serial(device)}")


@dataclass
class Usb:
    """An open box, by pyusb."""

    device: Any
    name: str

    def control_out(self, request: int, value: int, index: int, data: bytes) -> None:
        with _told():
            self.device.ctrl_transfer(TO_BOX, request, value, index, data, CONTROL_MS)

    def control_in(self, request: int, value: int, index: int, size: int) -> bytes:
        with _told():
            return bytes(self.device.ctrl_transfer(FROM_BOX, request, value, index, size, CONTROL_MS))

    def bulk_read(self, size: int, seconds: float) -> bytes:
        with _told():
            return bytes(self.device.read(ENDPOINT, size, max(1, round(seconds * 1000))))

    def close(self) -> None:
        _library("usb.util").dispose_resources(self.device)


@contextmanager
def _told() -> Iterator[None]:
    """Turn pyusb's errors into those of the seam."""
    core = _library("usb.core")
    try:
        yield
    except core.USBTimeoutError as exc:
        raise Silent from exc
    except core.USBError as exc:
        raise (Gone if exc.errno in GONE else Refused)(str(exc)) from exc


def _boxes(find: Find | None) -> list[Any]:
    core = _library("usb.core")
    try:
        found = (find or core.find)(find_all=True, idVendor=VENDOR, idProduct=PRODUCT)
        return list(found)
    except core.NoBackendError as exc:
        raise DeviceError(
            f"{WHAT}: expected the library libusb-1.0, got none; try: apt install libusb-1.0-0 (brew install libusb)"
        ) from exc


def _serial(device: Any) -> str:
    """Return its number; asking opens it, which this user may not be allowed to."""
    try:
        return str(device.serial_number)
    except (ValueError, _library("usb.core").USBError):
        return "unknown (no access)"


def _claim(device: Any) -> None:
    core = _library("usb.core")
    try:
        try:
            if device.is_kernel_driver_active(0):
                device.detach_kernel_driver(0)
        except NotImplementedError:
            pass  # not on this system: then no driver of the kernel's takes it either
        device.set_configuration()
        _library("usb.util").claim_interface(device, 0)
    except core.USBError as exc:
        if exc.errno == errno.EBUSY:
            raise DeviceError(
                f"{WHAT}: expected a free box, but another program has it open; end that one"
            ) from exc
        if exc.errno in NO_ACCESS:
            raise DeviceError(
                f"{WHAT}: expected to open it, got: this user may not; put `{UDEV}` in "
                "/etc/udev/rules.d/99-monsoon.rules and plug it in again"
            ) from exc
        raise Transient(f"{WHAT}: expected to open it, got: {exc}; plug it in again") from exc


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise DeviceError(
            f"{WHAT}: expected the module {name!r}, got {exc}; try: pip install 'melt-stream[monsoon_hvpm]'"
        ) from exc

# ruff: noqa: ARG002, N803 - pyusb says what a backend's methods take, and how it is called
"""An emulated box below the real pyusb: a backend in libusb's place, so that all of pyusb above it is what a real box meets."""

from __future__ import annotations

import array
import errno
from functools import partial
from types import SimpleNamespace

import usb.backend
import usb.core

from melt_stream.collectors._hvpm_link import Gone, Refused, Silent

STRING = 3
FIND = usb.core.find
"""Pyusb's own, before a test puts ours in its place."""


class EmulatedUsb(usb.backend.IBackend):
    def __init__(self, *boxes, claimed: int = 0, in_use: bool = False) -> None:
        self.boxes, self.failure, self.in_use = boxes, claimed, in_use
        self.reads: list[int] = []
        self.driver = True
        self.open = 0

    def find(self, *args, **kwargs):
        return FIND(*args, backend=self, **kwargs)

    def enumerate_devices(self):
        return iter(self.boxes)

    def get_device_descriptor(self, dev):
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=0x200, bDeviceClass=0xFF, bDeviceSubClass=0, bDeviceProtocol=0,
            bMaxPacketSize0=64, idVendor=0x2AB9, idProduct=0x0001, bcdDevice=0x100, iManufacturer=0, iProduct=0,
            iSerialNumber=1, bNumConfigurations=1, address=1, bus=1, port_number=1, port_numbers=(1,), speed=2,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev, config):
        return SimpleNamespace(
            bLength=9, bDescriptorType=2, wTotalLength=32, bNumInterfaces=1, bConfigurationValue=1, iConfiguration=0,
            bmAttributes=0x80, bMaxPower=50, extra_descriptors=[],
        )  # fmt: skip

    def get_interface_descriptor(self, dev, intf, alt, config):
        if (intf, alt) != (0, 0):
            raise IndexError
        return SimpleNamespace(
            bLength=9, bDescriptorType=4, bInterfaceNumber=0, bAlternateSetting=0, bNumEndpoints=1, bInterfaceClass=0xFF,
            bInterfaceSubClass=0, bInterfaceProtocol=0, iInterface=0, extra_descriptors=[],
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev, ep, intf, alt, config):
        return SimpleNamespace(
            bLength=7, bDescriptorType=5, bEndpointAddress=0x81, bmAttributes=2, wMaxPacketSize=64, bInterval=0,
            bRefresh=0, bSynchAddress=0, extra_descriptors=[],
        )  # fmt: skip

    def open_device(self, dev):
        self.open += 1
        return dev

    def close_device(self, dev_handle):
        self.open -= 1

    def get_configuration(self, dev_handle):
        return 1

    def set_configuration(self, dev_handle, config_value):
        if self.failure:
            raise usb.core.USBError("no", None, self.failure)

    def claim_interface(self, dev_handle, intf):
        if self.in_use:
            raise usb.core.USBError("Resource busy", -6, errno.EBUSY)

    def release_interface(self, dev_handle, intf):
        pass

    def is_kernel_driver_active(self, dev_handle, intf):
        return self.driver

    def detach_kernel_driver(self, dev_handle, intf):
        self.driver = False

    def reset_device(self, dev_handle):
        pass

    def bulk_read(self, dev_handle, ep, intf, buff, timeout):
        assert ep == 0x81
        self.reads.append(len(buff))
        data = self._told(partial(dev_handle.bulk_read, len(buff), timeout / 1000))
        buff[: len(data)] = array.array("B", data)
        return len(data)

    def ctrl_transfer(self, dev_handle, bmRequestType, bRequest, wValue, wIndex, data, timeout):
        if bmRequestType == 0x80:
            text = b"\x09\x04" if wValue == STRING << 8 else str(dev_handle.serial_number).encode("utf-16-le")
            answer = bytes([len(text) + 2, STRING]) + text
        elif bmRequestType == 0xC0:
            answer = self._told(partial(dev_handle.control_in, bRequest, wValue, wIndex, len(data)))
        else:
            assert bmRequestType == 0x40
            self._told(partial(dev_handle.control_out, bRequest, wValue, wIndex, bytes(data)))
            return len(data)
        data[: len(answer)] = array.array("B", answer)
        return len(answer)

    def _told(self, call):
        try:
            return call()
        except Silent:
            raise usb.core.USBTimeoutError("timed out", -7, errno.ETIMEDOUT) from None
        except Gone:
            raise usb.core.USBError("No such device", -4, errno.ENODEV) from None
        except Refused as exc:
            raise usb.core.USBError(str(exc), -9, errno.EPIPE) from None

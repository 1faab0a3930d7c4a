"""The seam below which the black Monsoon is USB: bulk reads and control transfers, and nothing else.

Three things offer it: pyusb (``_hvpm_usb``), a socket (``_hvpm_socket``), and the emulated box itself, in process.
"""

from __future__ import annotations

from typing import Protocol

PACKET = 64
"""Bytes of a full packet; a shorter one ends a read."""
TO_BOX, FROM_BOX = 0x40, 0xC0
"""bmRequestType of control transfers: vendor, to the device."""


class Silent(Exception):
    """Nothing came in time."""


class Gone(Exception):
    """The box is not there any more: unplugged, or switched off."""


class Refused(Exception):
    """The box, or who has it, refuses the transfer; says why."""


class Link(Protocol):
    """An open box. Every call blocks; one thread at a time uses it. Raises ``Silent``, ``Gone`` and ``Refused``."""

    name: str
    """Where it is, for messages."""

    def control_out(self, request: int, value: int, index: int, data: bytes) -> None:
        """Make a control transfer to the box."""

    def control_in(self, request: int, value: int, index: int, size: int) -> bytes:
        """Make a control transfer from the box."""

    def bulk_read(self, size: int, seconds: float) -> bytes:
        """Return packets of ``size`` bytes together, fewer where one was short or ``seconds`` have passed."""

    def close(self) -> None:
        """Let go of the box; it can be called twice."""

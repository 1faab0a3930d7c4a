"""The commands of USB hubs that switch their ports' power.

Sources: uhubctl's README and its outputs (github.com/mvp/uhubctl, GPL-2.0, run as a program), ykushcmd's (github.com/Yepkit/ykush).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Switch(NamedTuple):
    """How power is cut, restored and seen."""

    cut: Sequence[str]
    restore: Sequence[str]
    state: Sequence[str]
    """None where it cannot be seen."""
    powered: str
    """Matches what ``state`` prints where there is power, and the other where there is none."""
    unpowered: str


def uhubctl(through: Sequence[str], hub: str, port: int) -> Switch:
    """A port of a smart hub at a location.

    Prints ``Port 3: 0503 power highspeed enable connect [...]`` or ``Port 3: 0000 off``; of a USB 3 hub, both of its halves.
    """
    base = [*through, "uhubctl", "-l", hub, "-p", str(port)]
    line = rf"(?m)^\s*Port {port}: [0-9a-fA-F]{{4}} "
    return Switch([*base, "-a", "off"], [*base, "-a", "on"], base, rf"{line}power\b", rf"{line}off\b")


def ykush(through: Sequence[str], board: str, serial: str, port: int | None) -> Switch:
    """A port of Yepkit's boards; the XS has one only. Prints ``Downstream port 1 is ON`` or ``OFF``."""
    base = [*through, "ykushcmd", *([] if board == "ykush" else [board]), *(["-s", serial] if serial else [])]
    number = [] if port is None or board == "ykushxs" else [str(port)]
    which = r"Downstream port( \d+)? is"
    return Switch(
        [*base, "-d", *number],
        [*base, "-u", *number],
        [*base, "-g", *number],
        rf"{which} ON\b",
        rf"{which} OFF\b",
    )

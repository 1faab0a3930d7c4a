"""Where each core's time went: the lines ``cpu0``, ``cpu1``, ... of /proc/stat."""

from __future__ import annotations

from typing import NamedTuple

from melt_stream.errors import DeviceError
from melt_stream.units import Unit

JIFFY = Unit("cs")
"""USER_HZ is 100 on every architecture that matters here, so a count is a hundredth of a second."""
TICKS_PER_SECOND = 100


class Ticks(NamedTuple):
    """Time since boot, in jiffies; the rest of ``total`` is idle."""

    busy: int
    """user + nice + system + irq + softirq; a guest's time is part of user already."""
    iowait: int
    steal: int
    """What the hypervisor gave to somebody else."""
    total: int


class Shares(NamedTuple):
    """Parts of a core's time between two looks, 0 to 1."""

    busy: float
    iowait: float
    steal: float


def cores(stat: str) -> dict[int, Ticks]:
    """Return each online core's ticks. Raises ``DeviceError`` where there is not one."""
    lines = (line.split() for line in stat.splitlines() if line.startswith("cpu"))
    ticks = {int(name[3:]): _ticks(counts) for name, *counts in lines if name[3:].isdigit()}
    if not ticks:
        raise DeviceError(f"proc/stat: expected lines cpu0, cpu1, ..., got {stat[:80]!r}")
    return ticks


def _ticks(counts: list[str]) -> Ticks:
    # Kernels before 2.6.11 have fewer columns; 9 and 10 (guest) are counted in user and nice.
    user, nice, system, idle, iowait, irq, softirq, steal = (int(c) for c in [*counts, *["0"] * 8][:8])
    busy = user + nice + system + irq + softirq
    return Ticks(busy, iowait, steal, busy + idle + iowait + steal)


def shares(before: Ticks, after: Ticks) -> Shares | None:
    """Return where the time between two looks went; None where no jiffy passed (or a core came back from zero)."""
    total = after.total - before.total
    if total <= 0:
        return None
    # The kernel's iowait, and idle on a tickless core, may step back by a jiffy.
    return Shares(*(min(1.0, max(0, b - a) / total) for a, b in zip(before[:3], after[:3], strict=True)))

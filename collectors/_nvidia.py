"""What NVIDIA's driver tells of a GPU, and how well, whether its library or nvidia-smi is asked. Pure."""

from __future__ import annotations

import re

import pyarrow as pa

from melt_stream.clock import HOST, Clock
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import BYTE, CELSIUS, HZ, PERCENT, W

WINDOW_NS = 1e9
"""The driver's mean is over the last second."""
GAIN = 0.05 / 3**0.5
"""+/- 5 % as limits, as the NVML reference says of nvmlDeviceGetPowerUsage (for Fermi and Kepler; nothing for later)."""
SOURCE = "+/- 5 % (NVML reference, older models); by model: arXiv 2312.02741"
_BYTES = Column(BYTE, pa.int64())
_GA100 = re.compile(r"\b(A100|A800|A30)X?\b")
AMPERE = 8
"""Major number of the first compute capability whose plain power is a mean."""


def instant(clock: Clock = HOST) -> Stream:
    """The newest conversion of the board's sensor, which looks only part of the time on some models."""
    return Stream("instant", clock=clock, rail=str, watts=W)


def average(clock: Clock = HOST) -> Stream:
    """The driver's mean over the last second."""
    return Stream("average", clock=clock, rail=str, watts=W)


def state(clock: Clock = HOST) -> Stream:
    """A GPU's state; ``held_back`` is the driver's bit mask of reasons why its clocks are low (nvml.h: nvmlClocksEventReason...)."""
    return Stream(
        "gpu", clock=clock, gpu=int, utilization=PERCENT, memory_utilization=PERCENT, celsius=CELSIUS, sm_clock=HZ,
        memory_clock=HZ, memory_used=_BYTES, memory_total=_BYTES, held_back=int,
    )  # fmt: skip


def plain_is_mean(name: str, *, is_new: bool) -> bool:
    """Tell what a driver with one number for power means by it.

    Per the NVML reference a mean over 1 s since Ampere (``is_new``), but for GA100 (A100, A800, A30).
    """
    return is_new and not _GA100.search(name)


def gauge(name: str) -> Rail:
    """Return the rail of instant power."""
    return Rail(name, "board", "gauge", gain=GAIN, resolution=1e-3, instrument="gauge", source=SOURCE)


def mean(name: str) -> Rail:
    """Return the rail of average power."""
    return Rail(
        name, "board", "mean", window_ns=WINDOW_NS, gain=GAIN, resolution=1e-3, instrument="gauge", source=SOURCE
    )  # fmt: skip

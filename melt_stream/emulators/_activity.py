"""What the ``llama-server`` of an emulated device is at, and what the device draws meanwhile: the load ``follow``.

The server writes one letter of ``STATES`` into a file, which it holds a lock on as long as it lives; a server that is gone does nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from melt_stream.clock import monotonic

Array = np.ndarray[Any, Any]
STATES = ("idle", "prefill", "decode")
VARIABLE = "MELT_EMULATED_ACTIVITY"
"""The environment variable that tells the server its file."""


NEAR_NS = 100_000_000


@dataclass
class Activity:
    """Watts that follow the file; ``at`` and ``drew`` are the record of what the device drew, and from when (host ns)."""

    watts: Sequence[float]
    """For each of ``STATES``."""
    at: list[int] = field(default_factory=lambda: [0])
    drew: list[float] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    """When the device's files had been brought up to date, host ns: they are as late as these are apart."""
    _file: int = -1

    def __post_init__(self) -> None:
        self.drew.append(self.watts[0])

    def open(self, path: Path) -> None:
        """Follow this file, which is made; anybody on the machine may write it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        path.chmod(0o666)

    def close(self) -> None:
        """Follow it no more."""
        os.close(self._file)
        self._file = -1

    def look(self) -> float:
        """Return what is drawn from now on, and note it where that is new."""
        if (now := self.watts[self._state()]) != self.drew[-1]:
            self.at.append(monotonic())
            self.drew.append(now)
        return self.drew[-1]

    def showed(self) -> None:
        """Note that the device's files tell of it now."""
        self.shown.append(monotonic())

    def latest(self, start: int, stop: int) -> float:
        """Return the longest time, s, that the files were left alone around an interval of host ns."""
        near = [at for at in self.shown if start - NEAR_NS <= at <= stop + NEAR_NS]
        return float(np.max(np.diff(near))) * 1e-9 if len(near) > 1 else np.inf

    def value(self, seconds: Array) -> Array:
        """Watts now, as often as there are times."""
        return np.full(len(seconds), self.look())

    def joules(self, start: int, stop: int) -> float:
        """What was drawn between two host times, ns."""
        edges = np.array([start, *(at for at in self.at if start < at < stop), stop], np.int64)
        drew = np.array(self.drew)[np.searchsorted(np.array(self.at), edges[:-1], "right") - 1]
        return float(np.sum(drew * np.diff(edges)) * 1e-9)

    def _state(self) -> int:
        if self._file < 0:
            return 0
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a server lives
            return int(os.pread(self._file, 1, 0) or b"0")
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return 0

"""A run's lock: ``flock`` on a file in its folder, held by whoever records, packs or edits the run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melt_stream.errors import MeltError

_LOCK = "lock"
_PATIENCE_S = 2.0


class Locked(MeltError):
    """Somebody records or packs this run."""


@contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock of a run, or of another folder; raises ``Locked``, saying what is ``busy``, where somebody else keeps it."""
    lock = acquire(path, busy)
    try:
        yield
    finally:
        os.close(lock)


def is_locked(path: Path) -> bool:
    """Whether somebody records or packs this run now."""
    try:
        number = os.open(path / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False


def acquire(path: Path, busy: str = "") -> int:
    """Take a run's lock and return its descriptor; closing that, or dying, lets go of it."""
    # A reader looking whether the lock is free holds it for microseconds: ask again for a while.
    number = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    pauses = int(_PATIENCE_S / 0.02)
    for left in range(pauses, -1, -1):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(0.02)
        else:
            return number
    os.close(number)
    raise Locked(
        busy or f"run {path.name}: expected it to be free, got its lock held: it is being recorded or packed"
    )

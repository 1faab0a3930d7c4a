"""What one recorder may have at a time on this machine: a relay, a hub's port."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melt_stream.errors import DeviceError, Transient

SHARED = Path("/run/lock")
"""Where Linux has locks that all users share."""


@contextmanager
def alone(name: str, folder: Path | None = None) -> Iterator[int]:
    """Hold ``name`` for the time of the body, and as long as another process has the descriptor that this yields.

    Raises ``Transient`` where another process has it, ``DeviceError`` where there can be no lock.
    """
    folder = folder or (SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir()))
    path = folder / f"melt_stream_{''.join(c if c.isalnum() or c in '-.' else '_' for c in name)}.lock"
    number = _opened(path, name)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Transient(
                f"{name}: expected it to be free, got {path} held by another recorder; try: when that has ended (fuser {path} tells which)"
            ) from None
        yield number
    finally:
        os.close(number)


def _opened(path: Path, name: str) -> int:
    """Open it, made by whoever comes first; flock needs no more than to read, so that users can share it."""
    try:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise DeviceError(f"{name}: expected a lock at {path}, got {exc}") from exc

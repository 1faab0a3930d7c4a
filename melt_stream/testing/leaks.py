"""What is still there after a plug-in has ended: tasks, threads, descriptors."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

IDLE = re.compile(r"Trio (worker )?thread \d+")
"""Trio keeps its threads for a while, under such names, after they have done their work."""
GRACE_S = 2.0


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Raise ``AssertionError`` where the body leaves a task, a thread or a descriptor behind.

    What is still closing has a grace of two seconds.
    """
    tasks, threads, descriptors = _tasks(), _threads(), _descriptors()
    yield
    with trio.move_on_after(GRACE_S):
        # Threads and descriptors tell nobody when they go.
        while _tasks() > tasks or _threads() - threads or _new(descriptors):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert _tasks() <= tasks, f"expected {tasks} tasks after its end, got {_tasks()}"
    left = _threads() - threads
    assert not left, (
        f"expected no thread of its own after its end, got {sorted(thread.name for thread in left)}"
    )
    assert not _new(descriptors), f"expected no descriptor of its own after its end, got {_new(descriptors)}"


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not IDLE.fullmatch(thread.name)}


def _descriptors() -> dict[str, str]:
    return {path.name: _target(path) for path in Path("/proc/self/fd").iterdir()}


def _new(before: dict[str, str]) -> dict[str, str]:
    """The descriptors that were not there, or led elsewhere, before; not the one that lists them."""
    mine = f"/proc/{os.getpid()}/fd"
    return {fd: to for fd, to in _descriptors().items() if before.get(fd) != to and to not in {"", mine}}


def _target(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - Path.readlink makes a path of "socket:[1]"
    except OSError:
        return ""

"""Other programs, each in a process group of its own that never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

_GUARD = """
find_group() {
    for again in 1 2 3 4 5 6 7 8 9 10; do
        for file in $(grep -las "$1" /proc/[0-9]*/environ); do
            read -r stat <"${file%environ}stat" && set -- "$1" ${stat##*) } && echo "$4" && return
        done
        sleep 0.1
    done
}
grace=$2
read -r group || group=$(find_group "$1")
[ "$group" = done ] && exit
read -r done && exit
[ -n "$group" ] || exit
kill -s TERM -- "-$group" 2>/dev/null || exit
while [ "$grace" -gt 0 ] && kill -s 0 -- "-$group" 2>/dev/null; do sleep 0.1; grace=$((grace - 100)); done
kill -s KILL -- "-$group" 2>/dev/null
"""
"""Waits at our pipe, which tells the group and then "done". Its end without that means that we were killed.

Killed before we could tell the group, the command may have begun: Linux shows it by the mark in its environment.
"""
_MARK = "MELT_STREAM_GUARD"


Start = Callable[..., Awaitable[trio.Process]]
"""``await start(command, **options)``: as ``trio.lowlevel.open_process``."""


@asynccontextmanager
async def guarded(grace: float = 5.0) -> AsyncIterator[Start]:
    """Yield what starts one command in a process group of its own, which never outlives this block.

    If the command still runs when the block ends, however it ends, its group gets SIGTERM and, after ``grace``
    seconds, SIGKILL; so it does if this process is killed, by a small shell that waits for that. What the
    command left running when it ended by itself stays. Starting raises ``OSError`` where it cannot.
    """
    mark = uuid.uuid4().hex
    guard = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", _GUARD, "sh", f"{_MARK}={mark}", f"{grace * 1000:.0f}"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    started: list[trio.Process] = []

    async def start(command: Sequence[str], **options: Any) -> trio.Process:
        marked = {**os.environ, _MARK: mark}
        process = await trio.lowlevel.open_process(list(command), process_group=0, env=marked, **options)
        started.append(process)
        await _tell(guard, f"{process.pid}\n")
        return process

    try:
        yield start
    finally:
        with trio.CancelScope(shield=True):
            for process in started:
                await stop(process, grace)
            await _tell(guard, "done\n")
            await guard.wait()
            for process in (guard, *started):
                await _close(process)


async def _tell(guard: trio.Process, line: str) -> None:
    """Send it a line; should somebody have killed it, nothing depends on it while we live."""
    assert guard.stdin is not None
    with trio.CancelScope(shield=True), suppress(trio.BrokenResourceError):
        await guard.stdin.send_all(line.encode())


async def stop(process: trio.Process, grace: float) -> None:
    """End a group whose command still runs: SIGTERM, and SIGKILL after ``grace`` seconds."""
    if process.poll() is not None:
        return
    with trio.CancelScope(shield=True):
        _signal(process.pid, signal.SIGTERM)
        with trio.move_on_after(grace):
            await process.wait()
            while True:  # its children may still be saving something
                if not _signal(process.pid, 0):
                    return
                await trio.sleep(0.01)
        _signal(process.pid, signal.SIGKILL)
        await process.wait()


async def _close(process: trio.Process) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            await pipe.aclose()


def _signal(group_id: int, number: int) -> bool:
    try:
        os.killpg(group_id, number)
    except (ProcessLookupError, PermissionError):  # gone, or no longer ours to end
        return False
    return True

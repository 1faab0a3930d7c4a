"""Another program's work on a model: run, watched, measured; it never outlives us."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from melt_stream.collectors._process import guarded
from melt_stream.errors import ConfigError, DeviceError

LINES = 12
_LONGEST = 500


@dataclass(frozen=True)
class Took:
    """What a command took."""

    seconds: float
    peak_memory: int
    """Resident bytes at most, as the kernel counted for the command and what it waited for."""
    said: str
    """The first and the last lines that it wrote on stdout and stderr."""


def run(command: Sequence[str], folder: Path, what: str, *, cwd: Path | None = None) -> Took:
    """Run a command to its end, in ``cwd`` or else in ``folder``, which is ours to write to; not from within a Trio task (use ``trio.to_thread``).

    Raises ``ConfigError`` where it cannot be started, and ``DeviceError`` with its exit status, or the signal that killed
    it, and its last lines where it fails. If we end first, however that is, it is ended.
    """
    report = folder / ".report.json"
    watched = [
        sys.executable,
        "-m",
        "melt_stream.harness.zoo._measured_child",
        str(report),
        str(cwd or folder),
        *command,
    ]
    said = trio.run(_run, watched, folder)
    told: dict[str, Any] = json.loads(report.read_bytes()) if report.exists() else {"status": -signal.SIGKILL}
    report.unlink(missing_ok=True)
    if "error" in told:
        raise ConfigError(f"{what}: expected a command that starts, got {told['error']}")
    if told["status"]:
        raise DeviceError(
            f"{what}: expected exit status 0, got {_status(told['status'])}; its last lines:\n  {said or 'none'}"
        )
    return Took(told["seconds"], told["peak_memory"], said)


async def _run(command: Sequence[str], folder: Path) -> str:
    """Run a command and return the first and the last lines that it wrote."""
    first: list[bytes] = []
    last: deque[bytes] = deque(maxlen=LINES)
    async with guarded(grace=1.0) as start:
        process = await start(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LONGEST:]
            for line in filter(bytes.strip, lines):
                (last if len(first) >= LINES else first).append(line[-_LONGEST:])
        await process.wait()
    return b"\n  ".join([*first, *last, *filter(None, [rest])]).decode(errors="replace")


def _status(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

"""Workload ``command``: any program, measured from its start to its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import PositiveFloat

from melt_stream.collectors._process import guarded, stop
from melt_stream.errors import ConfigError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

NOT_FOUND, NOT_EXECUTABLE, SIGNALLED = 127, 126, 128
"""Exit statuses as a shell gives them; the last is added to the signal's number."""

_STDOUT = {"inherit": None, "stderr": 2}


@dataclass
class Command:
    """Run a program as one request without tokens, from ``window_start`` to ``window_end``.

    It has a process group of its own, our working directory, environment, stdout, stderr and, unless that is a
    terminal, stdin (a background group that reads from a terminal is stopped). If the run ends first, or this
    process is killed, the group gets SIGTERM and, after ``grace`` seconds, SIGKILL.

    When it ended, ``exit_status`` is its exit status, 128 + the number of the signal that killed it, 127 where
    there is no such program (that raises ``ConfigError`` too), or 126 where it cannot be run.
    """

    arguments: list[str]
    """Its name or path, and its arguments; no shell."""
    _: KW_ONLY
    name: str = ""
    """What it is called in the tables; by default the program's name."""
    grace: PositiveFloat = 5.0
    stdout: Literal["inherit", "stderr"] = "inherit"
    """Where its stdout goes: ``stderr`` where ours carries data."""

    def __post_init__(self) -> None:
        if not self.arguments:
            raise ConfigError("arguments: expected a program and its arguments, got none")
        self.exit_status: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"arguments": [sys.executable, "-c", "pass"]}}

    def prepare(self) -> None:
        """Raise ``ConfigError`` for a program that is not there, before anything is started."""
        program = self.arguments[0]
        if shutil.which(program) is None:
            found = os.path.lexists(program) if "/" in program else False
            self._cannot_start("it may not be run" if found else "there is none on PATH", found)

    async def collect(self, out: Outlet) -> None:
        number, name = out.next_request(), self.name or Path(self.arguments[0]).name
        out.fact("command", self.arguments)
        async with guarded(self.grace) as start:
            out.row(EVENTS, kind="window_start", request=number, name=name)
            try:
                process = await start(self.arguments, stdin=_stdin(), stdout=_STDOUT[self.stdout])
            except OSError as exc:
                out.row(EVENTS, kind="request_error", request=number, detail=json.dumps({"error": str(exc)}))
                self._cannot_start(str(exc), not isinstance(exc, FileNotFoundError))
            try:
                await process.wait()
            finally:
                await stop(process, self.grace)  # does nothing after an end of its own
                self._ended(out, number, name, process.returncode or 0)

    def _cannot_start(self, why: str, found: bool) -> NoReturn:
        self.exit_status = NOT_EXECUTABLE if found else NOT_FOUND
        raise ConfigError(f"arguments: expected a program that can be run, got {self.arguments[0]!r}: {why}")

    def _ended(self, out: Outlet, number: int, name: str, code: int) -> None:
        self.exit_status = code if code >= 0 else SIGNALLED - code
        detail = json.dumps({"exit_status": self.exit_status})
        out.row(EVENTS, kind="window_end", request=number, name=name, detail=detail)
        out.fact("exit_status", self.exit_status)


def _stdin() -> int | None:
    """Return what its stdin is: ours (None), or nothing where ours is a terminal."""
    return subprocess.DEVNULL if os.isatty(0) else None

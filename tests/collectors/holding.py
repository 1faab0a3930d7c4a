"""Conditions for tests: a switch that is a script, recorders that can be killed, and what a run has to say of its conditions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from melt_stream.engine import Ending, record
from melt_stream.outlet import Outlet
from melt_stream.testing import Keep

SCRIPT = """#!/bin/sh
echo "$1" >>{log}
case $1 in
state) cat {file} ;;
*) [ -e {stuck} ] || echo "$1" >{file} ;;
esac
"""


class Bench:
    """A switch on a bench: ``words("on")`` sets it to on, ``words("state")`` prints what it is; both are logged."""

    def __init__(self, folder: Path, state: str) -> None:
        self.folder = folder
        self.file, self.log, self.stuck = folder / "position", folder / "log", folder / "stuck"
        self.script = folder / "switch.sh"
        self.script.write_text(SCRIPT.format(file=self.file, log=self.log, stuck=self.stuck))
        self.position = state

    @property
    def position(self) -> str:
        return self.file.read_text().strip()

    @position.setter
    def position(self, state: str) -> None:
        self.file.write_text(f"{state}\n")

    def words(self, word: str) -> list[str]:
        return ["/bin/sh", str(self.script), word]

    def switched(self) -> list[str]:
        """What it was told, apart from the questions."""
        return [word for word in self.log.read_text().split() if word != "state"] if self.log.exists() else []


@dataclass
class Does:
    """A workload: a function, called once."""

    what: Callable[[], Any]

    async def collect(self, _: Outlet) -> None:
        await trio.lowlevel.checkpoint()
        self.what()


async def held(
    condition: Any, what: Callable[[], Any] = lambda: None, others: Any = (), **options: Any
) -> tuple[Ending, Keep]:
    """Record with a condition, and do something in the middle."""
    keep = Keep()
    ending = await record({"it": condition, **dict(others)}, [keep], {"work": Does(what)}, **options)
    return ending, keep


def stages(keep: Keep, name: str | None = None) -> dict[str, list[str]]:
    """The states of the run by stage, of one thing, or of the only one."""
    found: dict[str, list[str]] = {}
    for row in keep.rows("it.condition"):
        if name in {None, row["name"]}:
            found.setdefault(row["stage"], []).append(row["value"])
    return found


RECIPE = """
{sections}
[workloads.command]
arguments = ["sh", "-c", "echo begun; exec sleep 60"]
"""


class Recorder:
    """``melt-stream run`` in a process of its own; when this is there, its workload has begun."""

    def __init__(self, folder: Path, sections: str) -> None:
        recipe = folder / "recipe.toml"
        recipe.write_text(RECIPE.format(sections=sections))
        words = [
            sys.executable, "-m", "melt_stream", "run", str(recipe), "--archive", str(folder / "archive"),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "begun\n":
                return
        raise AssertionError(f"expected its workload to begin, got {self.process.communicate()[1]}")

    def end(self, number: signal.Signals) -> str:
        """Send it a signal, and return what it and its guards said; those have ended too, since they share its stderr."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=60)[1]

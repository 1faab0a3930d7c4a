"""Timing that can be trusted on a busy machine: rounds in turn, wall and CPU time, medians of ratios."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Work = Callable[[], object]


class Took(NamedTuple):
    """What one execution cost, in seconds; ``cpu`` is that of all threads, without that of child processes."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Effort:
    """How much to measure; ``quick`` proves that a bench runs, its numbers mean little."""

    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        """The first, or the second where there is little time."""
        return quick if self.quick else full

    @property
    def rounds(self) -> int:
        """How often each case is executed."""
        return self.pick(7, 2)


def took(work: Work) -> Took:
    """Execute once; work that returns what it took has timed the part that counts itself."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    all_of_it = Took(time.perf_counter() - wall, time.process_time() - cpu)
    return result if isinstance(result, Took) else all_of_it


def in_turn(cases: Mapping[str, Work], rounds: int, *, warm_up: bool = True) -> dict[str, list[Took]]:
    """Execute all cases in each of ``rounds`` rounds, A B C then B C A, after one execution that does not count.

    A machine that slows down for a while slows down every case, so that ratios taken round by round hold.
    """
    if warm_up:
        for work in cases.values():
            work()
    names = list(cases)
    times: dict[str, list[Took]] = {name: [] for name in names}
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(took(cases[name]))
    return times


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The quotients of one round each."""
    return [a / b for a, b in zip(above, below, strict=True)]


def walls(times: Sequence[Took]) -> list[float]:
    """Their wall times."""
    return [t.wall for t in times]


def cpus(times: Sequence[Took]) -> list[float]:
    """Their CPU times."""
    return [t.cpu for t in times]


def peak_bytes() -> int:
    """The most memory this process has had resident so far; unlike ``ru_maxrss``, without its parent's before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("expected VmHWM in /proc/self/status, found none; this needs Linux")


def in_child(module: str, *arguments: str) -> Any:
    """Execute ``python -m module arguments`` in a process of its own; return the JSON in its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])

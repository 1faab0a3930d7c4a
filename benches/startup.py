"""How long one waits for the first line: imports and ``--help``, beside a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benches.figures import Figure, at_most
from benches.measure import Effort, Work, in_turn, ratios, walls

PASS = "python -c pass"


def run(effort: Effort) -> Iterator[Figure]:
    """Wall times of whole processes."""
    python = sys.executable
    cases = {
        PASS: _process(python, "-c", "pass"),
        "import melt_stream": _process(python, "-c", "import melt_stream"),
        "melt-stream --help": _process(str(Path(python).with_name("melt-stream")), "--help"),
    }
    times = {name: walls(found) for name, found in in_turn(cases, effort.pick(15, 2)).items()}
    for name, values in times.items():
        yield Figure(name, values, "s", at_most(0.4) if "--help" in name else None)
    for name in list(times)[1:]:
        yield Figure(f"{name} / {PASS}", ratios(times[name], times[PASS]), "x")


def _process(*command: str) -> Work:
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

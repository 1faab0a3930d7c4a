"""The report of a run of 1 M samples: how long it takes to write, and its size beside the page with no samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benches import made_up
from benches.figures import Figure
from benches.measure import Effort, in_turn, walls
from benches.recording import scratch
from melt_stream.analysis.pack import pack
from melt_stream.analysis.report import build
from melt_stream.run import Run


def run(effort: Effort) -> Iterator[Figure]:
    """A run of 1 M samples at 1 kHz and its answers, and one of 1,000."""
    samples = effort.pick(1_000_000, 20_000)
    with scratch() as archive:
        many, few = (pack(made_up.make(archive, count).path) for count in (samples, 1_000))
        times = in_turn({"many": lambda: written(many), "few": lambda: written(few)}, effort.rounds)
        sizes = {"many": written(many), "few": written(few)}
    yield Figure(f"{samples:,} samples: time to write", walls(times["many"]), "s")
    yield Figure(f"{samples:,} samples: size of the file", [sizes["many"]], "B")
    yield Figure("1,000 samples: time to write", walls(times["few"]), "s")
    yield Figure("1,000 samples: size of the file", [sizes["few"]], "B")


def written(run: Run) -> float:
    """Write the report and return its size."""
    path = build(run, Path(run.path.parent / "report.html"))
    return float(path.stat().st_size)

"""Energy of 1 M tokens out of 10 M samples: ours beside numpy, pandas, polars and DuckDB doing the same exact job.

Ours is what ``energy_between`` does: samples become pieces of power, gaps and samples that are no numbers among them,
and each token is summed from zero on its own, on all CPUs. Beside it the same on one thread; the sweep of attribution,
which tells covered length, variance and the power at both edges as well; and only looking at every number once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benches import peers
from benches.figures import Figure, at_least
from benches.measure import Effort, cpus, in_turn, ratios, walls
from benches.peers import Array, Job
from melt_stream.analysis.between import energies
from melt_stream.analysis.integrate import RailData, pieces

PERIOD_NS = 10_000.0
PEERS: dict[str, Callable[[Job], Array]] = {
    "numpy": peers.with_numpy,
    "pandas": peers.with_pandas,
    "polars": peers.with_polars,
    "DuckDB ASOF": peers.with_duckdb,
}
TARGETS = {"numpy": at_least(4.0), "polars": at_least(10.0)}
ONE = "ours, on one thread"
SWEEP = "ours, with all that attribution asks"
ULPS = 8
"""A running sum of the whole carries about so many roundings of its last digit into a token, in any of the peers."""


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the results, then time all in turn."""
    job = peers.make(effort.pick(10_000_000, 200_000), effort.pick(1_000_000, 20_000))
    check(job)
    cases: dict[str, Callable[[Job], object]] = {"ours": ours, **OURS, **PEERS, "reading": peers.read}
    times = in_turn({name: partial(work, job) for name, work in cases.items()}, effort.pick(5, 2))
    for name in cases:
        yield Figure("only reading the arrays" if name == "reading" else name, walls(times[name]), "s")
    for name in PEERS:
        both = ratios(walls(times[name]), walls(times["ours"]))
        yield Figure(f"{name} / ours", both, "x", TARGETS.get(name))
    for name in PEERS:
        yield Figure(f"{name} / ours, CPU time", ratios(cpus(times[name]), cpus(times["ours"])), "x")
    for name in PEERS:
        both = ratios(walls(times[name]), walls(times[ONE]))
        yield Figure(f"{name} / {ONE}", both, "x")
    yield Figure("ours / only reading", ratios(walls(times["ours"]), walls(times["reading"])), "x")


def ours(job: Job, threads: int | None = None) -> Array:
    """The energy of each token, and nothing else."""
    (made,) = pieces(_rail(job))
    return energies(made, job.start, job.stop, threads=threads)


def with_sweep(job: Job) -> Array:
    """Sweep over all edges in their order; every other interval is a pause between tokens, mostly of no length."""
    (made,) = pieces(_rail(job))
    edges = np.column_stack([job.start, job.stop]).ravel()
    return made.sweep(made.positions(edges))[0][::2]


OURS: dict[str, Callable[[Job], Array]] = {ONE: partial(ours, threads=1), SWEEP: with_sweep}


def check(job: Job) -> None:
    """Raise where a peer's energy of a token is not ours, to 1e-9 and the rounding of running sums."""
    mine = ours(job)
    slack = 1e-9 * np.abs(mine) + ULPS * np.spacing(mine.sum())
    for name, work in {**OURS, **PEERS}.items():
        worst = int(np.argmax(np.abs(work(job) - mine) / slack))
        if not abs(work(job)[worst] - mine[worst]) <= slack[worst]:
            raise ValueError(
                f"{name}, token {worst}: expected {mine[worst]!r} J as ours says, got {work(job)[worst]!r}"
            )


def _rail(job: Job) -> RailData:
    facts = {"kind": "gauge", "sensor_of": "meter.power", "name": "main"}
    return RailData(facts, "host", 1.0, PERIOD_NS, job.t, None, None, {"watts": job.watts}, {"watts": "W"})

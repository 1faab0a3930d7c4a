"""Clock maps against made-up clocks whose truth is known: is it within the bound, and how wide is that?

Two-way: 10,000 runs over three kinds of link, drift to 200 ppm, a rate that wanders as far as is declared, stamps of
1 ns to 15.6 ms, readings 10 ms to 10 s apart. In each run the truth is asked for at 40 moments, beyond both ends too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benches.clock_markers import markers
from benches.clock_peers import TWO_WAY, arrivals_line
from benches.clock_worlds import (
    JITTERS,
    LINKS,
    MARGIN,
    S,
    World,
    arrivals,
    draw,
    readings,
    set_once,
    stepped,
    table,
)
from benches.figures import Figure, at_least, at_most
from benches.measure import Effort, in_turn, ratios, walls
from melt_stream.analysis.clocks import Maps, fit

Array = np.ndarray[Any, Any]
ASKED = 40
BATCH = 200
ROUNDING_NS = 2.0
"""A map's host times are whole, and so are the ticks that are asked for."""
OURS, LINE = "ours", "ours with rho = 0, a line"


def run(effort: Effort) -> Iterator[Figure]:
    """Coverage, error and width of two-way maps; steps; one-way drift; markers; and the time that a fit takes."""
    yield from two_way(effort.pick(10_000, 150))
    yield from steps(effort.pick(1_000, 20))
    yield from one_way(effort.pick(500, 10))
    yield from markers(effort)
    yield from speed(effort)


class Tally:
    """What one way of placing a clock came to, over runs: per run the median error and width, and whether it held."""

    def __init__(self) -> None:
        self.error: list[float] = []
        self.width: list[float] = []
        self.left = 0

    def add(self, off: Array, low: Array, high: Array) -> None:
        """One run: how far the truth was after the map, and the bound of that, ns."""
        self.left += bool(np.any((off < low - ROUNDING_NS) | (off > high + ROUNDING_NS)))
        self.error.append(float(np.median(np.abs(off))) / S)
        self.width.append(float(np.median(high - low)) / 2 / S)


def two_way(count: int) -> Iterator[Figure]:
    """Ours and its peers on the same runs, as many of each link."""
    names = (OURS, LINE, *TWO_WAY)
    tallies = {(name, link): Tally() for name in names for link in LINKS}
    runs = [(seed, link) for seed in range(-(-count // len(LINKS))) for link in LINKS][:count]
    for first in range(0, len(runs), BATCH):
        worlds = [draw(*one) for one in runs[first : first + BATCH]]
        maps, lines = fit(readings(worlds)), fit(readings(worlds, rho_ppm=0.0))
        for k, world in enumerate(worlds):
            t = _moments(world, first + k)
            ticks = np.floor(world.shown(t) * S).astype(np.int64)
            tallies[OURS, world.link].add(*_ours(maps, f"c{k}", t, ticks))
            tallies[LINE, world.link].add(*_ours(lines, f"c{k}", t, ticks))
            sent, back = world.sent * S, world.back * S
            for name, peer in TWO_WAY.items():
                placed, bound = peer(world.tick + world.resolution / 2, sent, back, ticks)
                bound = bound + world.resolution / 2
                tallies[name, world.link].add(t * S - placed, -bound, bound)
    for name in names:
        left = sum(tallies[name, link].left for link in LINKS)
        what = f"{name}: of {len(runs):,} runs, those whose truth left the bound"
        yield Figure(what, [float(left)], "", at_most(0) if name == OURS else None)
    for link in LINKS:
        for name in names:
            yield Figure(f"{link}, {name}: error", _spread(tallies[name, link].error), "s")
            yield Figure(f"{link}, {name}: bound", _spread(tallies[name, link].width), "s")


def steps(count: int) -> Iterator[Figure]:
    """Clocks that are set ahead once by 50 ms or more: found as a segment, and the truth within the bound."""
    found, left = 0, 0
    runs = [(seed + 1_000_000, link) for seed in range(-(-count // len(LINKS))) for link in LINKS][:count]
    for first in range(0, len(runs), BATCH):
        made = [stepped(draw(*one), one[0]) for one in runs[first : first + BATCH]]
        maps = fit(readings([world for world, _ in made]))
        segments = maps.table()["clock"].to_pylist()
        for k, (world, when) in enumerate(made):
            found += segments.count(f"c{k}") == 2
            t = _moments(world, first + k)
            before, after = world.read[world.read <= when].max(), world.read[world.read > when].min()
            t = t[(t <= before) | (t >= after)]  # between those two nobody can know
            tally = Tally()
            tally.add(*_ours(maps, f"c{k}", t, np.floor(world.shown(t) * S).astype(np.int64)))
            left += tally.left
    yield Figure("set ahead once: runs with exactly one new segment", [100.0 * found / len(runs)], "%")
    what = f"set ahead once: of {len(runs):,} runs, those whose truth left the bound"
    yield Figure(what, [float(left)], "", at_most(0))


def one_way(count: int) -> Iterator[Figure]:
    """The drift of 600 arrivals in 60 s, and clocks that are set among them."""
    for jitter in JITTERS:
        off, line, covered, cut, found = [], [], 0, 0, 0
        for seed in range(count):
            made, drift = arrivals(seed, jitter)
            row, *more = fit(made).table().to_pylist()
            cut += bool(more)
            found += len(fit(set_once(made, seed)).of("one_way").segments) == 2
            off.append(abs(row["drift_ppm"] - drift))
            covered += off[-1] <= row["drift_bound_ppm"]
            line.append(abs(arrivals_line(made["count"].to_numpy(), made["not_after"].to_numpy()) - drift))
        steady = jitter.endswith("1 ms")
        worst = Figure(
            f"one-way, {jitter}: worst drift error", [max(off)], "ppm", at_most(2.0) if steady else None
        )
        yield worst
        yield Figure(f"one-way, {jitter}: worst of least squares", [max(line)], "ppm")
        yield Figure(
            f"one-way, {jitter}: drift within its interval", [100.0 * covered / count], "%", at_least(95.0)
        )
        yield Figure(f"one-way, {jitter}: steady clocks cut in two", [100.0 * cut / count], "%", at_most(0.0))
        what = f"one-way, {jitter}: set once by 20 ms to 10 s, found as one step"
        yield Figure(what, [100.0 * found / count], "%")


def speed(effort: Effort) -> Iterator[Figure]:
    """A million readings of one clock, both ways and one way, beside numpy's least squares on the same columns."""
    n = effort.pick(1_000_000, 20_000)
    rng = np.random.default_rng(3)
    tick = np.arange(n, dtype=np.int64) * 1_000_000
    host = tick * (1 + 40e-6)
    before, after = np.floor(host - rng.exponential(1e5, n)), np.ceil(host + rng.exponential(3e5, n))
    both = table("meter", tick, before, after, 1000, rho_ppm=15.0, kind="round_trip")
    arrived = table("meter", tick, None, after, 1, rho_ppm=15.0)
    cases = {
        "both ways": lambda: fit(both),
        "one way": lambda: fit(arrived),
        "np.polyfit": lambda: np.polyfit(tick, after - tick, 1),
    }
    times = in_turn(cases, effort.rounds)
    for name in ("both ways", "one way"):
        yield Figure(f"{n:,} readings, {name}: fit", walls(times[name]), "s", at_most(0.1))
    yield Figure(f"{n:,} readings: np.polyfit", walls(times["np.polyfit"]), "s")
    yield Figure(
        "np.polyfit / ours, both ways", ratios(walls(times["np.polyfit"]), walls(times["both ways"])), "x"
    )


def _moments(world: World, seed: int) -> Array:
    """Host times at which the truth is asked for, s."""
    rng = np.random.default_rng([seed, 5])
    ends = [-MARGIN * world.seconds, 0.0, world.seconds, (1 + MARGIN) * world.seconds]
    return np.sort(np.concatenate([rng.uniform(ends[0], ends[-1], ASKED - len(ends)), ends]))


def _ours(maps: Maps, clock: str, t: Array, ticks: Array) -> tuple[Array, Array, Array]:
    """How far the truth is after the map, and the bound of that, ns."""
    placed = maps.to_host(clock, 0, ticks)
    assert placed is not None
    return t * S - placed, *maps.bound(clock, 0, placed)


def _spread(values: Sequence[float]) -> list[float]:
    """Smallest, median, largest."""
    return [min(values), float(np.median(values)), max(values)]

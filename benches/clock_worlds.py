"""Made-up clocks and the readings that can be had of them: what a bound has to hold against.

A world is drawn from a seed: a clock that drifts and wanders, when it is read, and how long each way took. All times
are seconds of the host's clock since the run's start; a device shows ``shown(t)``, which is a polyline, so that its
inverse is one too and the truth is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.internal import READINGS

Array = np.ndarray[Any, Any]
Random = np.random.Generator
S = 1e9
RHO_PPM = 15.0
"""Declared of every clock here, and used up in full by the worlds that wander."""
KNOTS = 512
MARGIN = 0.1
"""Truth is asked for up to this share of the run beyond its ends."""
RESOLUTIONS = (1, 1_000, 1_000_000, 15_625_000)
"""Of the device's stamps, ns."""
BURST, BURST_STEP_S = 8, 0.01
"""Readings at both ends of every run, as the engine makes them."""


@dataclass(frozen=True)
class World:
    """One run: the truth, and its round trips as both sides stamped them."""

    link: str
    seconds: float
    at: Array
    """Knots of host time, s; from before the run to after it."""
    device: Array
    """What the clock showed at the knots, s."""
    drift_ppm: float
    """Host time per nominal device time, less 1."""
    read: Array
    """When the clock was really read, s."""
    sent: Array
    """Host time of each request, s."""
    back: Array
    """Host time of each reply, s."""
    tick: Array
    """What the reply said: ns, floored to the resolution."""
    resolution: int

    def shown(self, t: Array) -> Array:
        """What the clock shows at these times, s."""
        return np.interp(t, self.at, self.device)


def draw(seed: int, link: str) -> World:
    """Draw a run of two-way readings, 10 ms to 10 s apart, over 3 s to 10 min."""
    rng = np.random.default_rng([seed, sorted(LINKS).index(link)])
    apart = 10.0 ** rng.uniform(-2, 1)
    seconds = float(np.clip(apart * rng.integers(20, 150), 3.0, 600.0))
    drift = rng.uniform(-200, 200)
    at = np.linspace(-MARGIN * seconds - 2, (1 + MARGIN) * seconds + 2, KNOTS)
    rate = (1 + 1e-6 * WANDERS[rng.integers(len(WANDERS))](rng, at)) / (1 + 1e-6 * drift)
    device = np.concatenate([[0.0], np.cumsum(np.diff(at) * rate[:-1])]) + rng.uniform(-1e6, 1e6)
    burst = BURST_STEP_S * np.arange(BURST)
    between = np.arange(burst[-1], seconds - burst[-1], apart)[:150]
    mid = np.concatenate([burst, between + rng.uniform(0, apart / 2, len(between)), seconds - burst])
    out, reply = LINKS[link](rng, len(mid))
    resolution = int(rng.choice(RESOLUTIONS))
    tick = np.floor(np.interp(mid, at, device) * S / resolution).astype(np.int64) * resolution
    order = np.argsort(mid)
    sent, back = (mid - out)[order], (mid + reply)[order]
    return World(link, seconds, at, device, drift, mid[order], sent, back, tick[order], resolution)


def _steady(_: Random, at: Array) -> Array:
    return np.zeros(len(at))


def _sine(rng: Random, at: Array) -> Array:
    period = (at[-1] - at[0]) * 10.0 ** rng.uniform(-1.3, 0.7)
    return np.asarray(RHO_PPM * np.sin(2 * np.pi * at / period + rng.uniform(0, 2 * np.pi)))


def _random_walk(rng: Random, at: Array) -> Array:
    """Of the rate, reflected at both ends of what is allowed."""
    walk = np.cumsum(rng.normal(0, RHO_PPM * rng.uniform(0.02, 0.3), len(at))) + RHO_PPM
    return np.asarray(np.abs((walk % (4 * RHO_PPM)) - 2 * RHO_PPM) - RHO_PPM)


def _thermal(rng: Random, at: Array) -> Array:
    """Warms up: the rate settles from one end of what is allowed to the other."""
    settle = (at[-1] - at[0]) * rng.uniform(0.02, 0.5)
    since = np.maximum(at - at[0] - rng.uniform(0, 0.5) * (at[-1] - at[0]), 0.0)
    return np.asarray(rng.choice([-1, 1]) * RHO_PPM * (1 - 2 * np.exp(-since / settle)))


WANDERS: tuple[Callable[[Random, Array], Array], ...] = (_steady, _sine, _random_walk, _thermal)
"""Rates less the mean one, ppm, within ``RHO_PPM`` of it."""


def _loopback(rng: Random, n: int) -> tuple[Array, Array]:
    """Some 10 us, and now and then a process that was not scheduled for up to 20 ms."""
    out, back = (
        rng.uniform(5e-6, 4e-5)
        + rng.exponential(1e-5, n)
        + np.where(rng.random(n) < 0.03, rng.uniform(1e-3, 2e-2, n), 0)
        for _ in range(2)
    )
    return out, back


def _usb(rng: Random, n: int) -> tuple[Array, Array]:
    """A frame of 1 ms, and on the way back a converter's latency timer, which makes the ways unlike each other."""
    out = 5e-5 + rng.uniform(0, 1e-3, n) + rng.exponential(1e-4, n)
    timer = rng.choice([0.0, 1e-3, 1.6e-2])
    return out, 1e-4 + rng.uniform(0, 1e-3, n) + rng.uniform(0, 1, n) * timer + rng.exponential(1e-4, n)


def _wifi(rng: Random, n: int) -> tuple[Array, Array]:
    """Milliseconds, with a tail that has no variance (Pareto, 1.3), and a slower way up."""
    out, back = (
        rng.uniform(4e-4, 2e-3) + np.minimum(1e-3 * scale * rng.pareto(1.3, n), 5.0)
        for scale in (rng.uniform(1, 4), 1.0)
    )
    return out, back


LINKS: dict[str, Callable[[Random, int], tuple[Array, Array]]] = {
    "loopback": _loopback, "USB": _usb, "Wi-Fi": _wifi,
}  # fmt: skip
"""Delays of n requests and their replies, s."""


def stepped(world: World, seed: int) -> tuple[World, float]:
    """Set the clock ahead by 50 ms to 10 s in the middle third of a run, and say when."""
    rng = np.random.default_rng([seed, 99])
    when = float(rng.uniform(1 / 3, 2 / 3)) * world.seconds
    ahead = math.ceil(10.0 ** rng.uniform(-1.3, 1) * S / world.resolution) * world.resolution
    k = int(np.searchsorted(world.at, when))
    at = np.concatenate([world.at[:k], [when, np.nextafter(when, np.inf)], world.at[k:]])
    device = np.interp(at, world.at, world.device) + np.where(at > when, ahead / S, 0.0)
    tick = world.tick + np.where(world.read > when, ahead, 0)
    return replace(world, at=at, device=device, tick=tick), when


def arrivals(seed: int, jitter: str, seconds: float = 60.0, count: int = 600) -> tuple[pa.Table, float]:
    """Draw one-way readings of a steady clock, and its drift in ppm; the delay is at least half a millisecond."""
    rng = np.random.default_rng([seed, sorted(JITTERS).index(jitter), 7])
    drift = float(rng.uniform(-150, 150))
    tick = np.linspace(0, seconds, count) * S
    host = tick * (1 + drift * 1e-6) + (5e-4 + JITTERS[jitter](rng, count)) * S
    return table("one_way", np.rint(tick).astype(np.int64), None, np.rint(host), 1, rho_ppm=0.0), drift


def set_once(arrived: pa.Table, seed: int) -> pa.Table:
    """Set the clock of one-way readings ahead or back by 20 ms to 10 s, in the middle two thirds of the run."""
    rng = np.random.default_rng([seed, 98])
    count = arrived["count"].to_numpy().copy()
    ahead = round(10.0 ** rng.uniform(-1.7, 1) * S) * int(rng.choice([-1, 1]))
    count[int(rng.uniform(1 / 6, 5 / 6) * len(count)) :] += ahead
    return arrived.set_column(arrived.column_names.index("count"), "count", pa.array(count))


JITTERS: dict[str, Callable[[Random, int], Array]] = {
    "exponential 1 ms": lambda rng, n: rng.exponential(1e-3, n),
    "uniform 1 ms": lambda rng, n: rng.uniform(0, 1e-3, n),
    "heavy tail (Pareto 1.1)": lambda rng, n: np.minimum(1e-3 * rng.pareto(1.1, n), 30.0),
    "log-normal": lambda rng, n: 1e-3 * rng.lognormal(0, 1.5, n),
}
"""Delays beyond the least one, s."""


def readings(worlds: Sequence[World], rho_ppm: float = RHO_PPM) -> pa.Table:
    """The round trips of these runs as the stream ``run.readings`` has them, a clock for each run: ``c0``, ``c1``..."""
    return pa.concat_tables(
        table(
            f"c{k}", w.tick, np.floor(w.sent * S), np.ceil(w.back * S), w.resolution, kind="round_trip",
            rho_ppm=rho_ppm,
        )
        for k, w in enumerate(worlds)
    )  # fmt: skip


def table(
    clock: str, tick: Array, before: Array | None, after: Array, resolution: int, *, rho_ppm: float,
    kind: str = "arrival",
) -> pa.Table:  # fmt: skip
    """Readings of one clock of 1 ns ticks; host times in ns."""
    n = len(tick)
    columns = {
        "tick": np.zeros(n, np.int64), "clock_of": pa.array([clock] * n), "epoch_of": np.zeros(n, np.int64),
        "count": tick, "resolution": np.full(n, resolution),
        "not_before": pa.nulls(n, pa.int64()) if before is None else before.astype(np.int64),
        "not_after": after.astype(np.int64), "kind": pa.array([kind] * n), "tick_ns": np.ones(n),
        "rho_ppm": np.full(n, rho_ppm), "same_rate": np.zeros(n, bool),
    }  # fmt: skip
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in READINGS.schema]
    return pa.table([pa.array(array) for array in arrays], READINGS.schema)

"""Decoding a PowerSensor3's sets, four pairs in use, with resynchronisation and the loss check: ours beside numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benches.figures import Figure, at_least
from benches.measure import Effort, Work, in_turn, ratios, walls
from melt_stream.collectors import _powersensor3 as box
from melt_stream.collectors._powersensor3_framing import Framing
from melt_stream.collectors._powersensor3_timeline import Samples, Timeline
from melt_stream.emulators import Load
from melt_stream.emulators.powersensor3 import Pair, PowerSensor3

Array = np.ndarray[Any, Any]
HZ = 20_000
AT_ONCE = 18 * 100_000
"""Bytes decoded at once: 5 s."""
READ = 4095
"""Bytes that a port gives at once: 11 ms."""


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the results, then time all in turn."""
    count = effort.pick(2_000_000, 200_000)
    emulator = _four_pairs()
    data, sensors = emulator.wire(0, count, HZ), box.sensors(emulator.config)
    check(data[: 18 * 5000], sensors)
    cases: dict[str, Work] = {
        "ours": partial(ours, data, sensors, AT_ONCE),
        "placed": partial(placed, data, sensors),
        "numpy": partial(with_numpy, data, sensors),
    }
    times = in_turn(cases, effort.rounds)
    rate = {name: [count / took for took in walls(times[name])] for name in cases}
    yield Figure("sets to columns, 5 s at once", rate["ours"], "rows/s", at_least(20e6))
    yield Figure("and to ticks and gaps, in the blocks of a port", rate["placed"], "rows/s")
    yield Figure("numpy, no resynchronisation", rate["numpy"], "rows/s")
    yield Figure("ours / numpy", ratios(rate["ours"], rate["numpy"]), "x")


def ours(data: bytes, sensors: list[box.Sensor], size: int) -> list[Array]:
    """Find sets, check that they follow one another, convert."""
    framing = Framing(box.forms(sensors), box.pairs(sensors))
    return [framing.feed(data[start : start + size]).values for start in range(0, len(data), size)]


def placed(data: bytes, sensors: list[box.Sensor]) -> int:
    """Do what the collector does, with reads as a port gives them."""
    framing, timeline, rows = Framing(box.forms(sensors), box.pairs(sensors)), None, 0
    for start in range(0, len(data), READ):
        found = framing.feed(data[start : start + READ])
        if timeline is None and framing.beat is not None:
            timeline = Timeline(framing.beat)
        arrival = (start + READ) * 50_000 // 18
        for piece in timeline.take(found, arrival) if timeline else ():
            rows += len(piece.tick) if isinstance(piece, Samples) else 0
    return rows


def with_numpy(data: bytes, sensors: list[box.Sensor]) -> Array:
    """What a good user of numpy would write: every set whole, a wrong bit or step an error."""
    sets = np.frombuffer(data, np.uint8).reshape(-1, 9, 2)
    high, low = sets[:, :, 0], sets[:, :, 1]
    levels = ((high & 15).astype(np.int16) << 6) | (low & 63)
    if (high < 128).any() or (low >= 128).any() or (np.diff(levels[:, 0]) % 1024 != 50).any():
        raise ValueError("expected no loss")
    gain = np.array([sensor.step for sensor in sensors], np.float32)
    zero = np.array([sensor.zero for sensor in sensors], np.float32)
    values: Array = levels[:, 1:] * gain - zero
    return values


def check(data: bytes, sensors: list[box.Sensor]) -> None:
    """Raise where the two do not agree."""
    mine = np.concatenate(ours(data, sensors, READ), axis=1)
    np.testing.assert_allclose(mine.T, with_numpy(data, sensors)[:-1], atol=1e-5)


def _four_pairs() -> PowerSensor3:
    loads = [f"square:{k}W,{10 * k}W,{k}ms" for k in (1, 2, 3, 4)]
    pairs = [Pair(f"pair {k}", 12.0, Load.parse(load)) for k, load in enumerate(loads)]
    emulator = PowerSensor3(pairs=pairs)
    emulator.started = emulator.began
    return emulator

"""What a whole recording of this host costs: every collector of files that works here, at one rate."""

from __future__ import annotations

from collections.abc import Iterator

from benches.figures import Figure
from benches.measure import Effort
from benches.recording import scratch, watched
from melt_stream.plugins import COLLECTORS, load
from melt_stream.sensor import FileSensor

RATES = (10, 100, 1000)
NAMES = ("cpu", "cpu_estimate", "memory", "thermal", "cpufreq", "rapl", "hwmon", "battery")


def run(effort: Effort) -> Iterator[Figure]:
    """The process's share of a core at each rate, with the journal."""
    names = list(sensors(1.0))
    shares: dict[int, list[float]] = {hz: [] for hz in RATES}
    with scratch() as archive:
        for _ in range(effort.pick(3, 1)):
            for hz in RATES:
                _, share = watched(archive, sensors(hz), effort.pick(4, 1))
                shares[hz].append(share)
    for hz in RATES:
        yield Figure(f"{', '.join(names)} at {hz} Hz: share of a core", shares[hz], "%")


def sensors(hz: float) -> dict[str, FileSensor]:
    """Return those that find their files on this machine."""
    everyone = {name: load(COLLECTORS, name)(hz=hz) for name in NAMES}
    return {name: sensor for name, sensor in everyone.items() if sensor.check().ok}

"""A PPK2, a PowerSensor3 and a Monsoon LVPM, emulated in processes of their own, recorded together with the host's collectors.

What is lost that nobody ordered, what the recorder needs of a core, whether its memory grows, and whether each meter's mean power is what
was played.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import trio

from benches.figures import Figure, at_most
from benches.measure import Effort
from benches.recording import SETTLING_S, recorded, scratch
from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.collector import Collector
from melt_stream.collectors.cpu import Cpu
from melt_stream.collectors.cpu_estimate import CpuEstimate
from melt_stream.collectors.memory import Memory
from melt_stream.collectors.monsoon_lvpm import MonsoonLvpm
from melt_stream.collectors.powersensor3 import PowerSensor3
from melt_stream.collectors.ppk2 import Ppk2
from melt_stream.outlet import Outlet

METERS = {"ppk2": 1.5, "powersensor3": 24.0, "monsoon_lvpm": 1.5}
"""What each is played, W: enough that a count of its converter is a small part of it."""
STREAMS = {"ppk2": "power", "powersensor3": "slot_12v", "monsoon_lvpm": "main"}
"""The stream that the load is in."""
NOT_LOST = "%calibration%"
"""The reason of the gaps in which a Monsoon measures its own zero."""


@dataclass
class Watch:
    """A workload that says what the process needed of the CPU, and how much memory it held in each second."""

    seconds: float
    percent: float = 0.0
    memory: list[int] = field(default_factory=list)

    async def collect(self, out: Outlet) -> None:  # noqa: ARG002 - it has no rows
        """Wait until all has settled, then watch."""
        await trio.sleep(SETTLING_S)
        process, cpu, wall = psutil.Process(), time.process_time(), time.perf_counter()
        while time.perf_counter() < wall + self.seconds:
            await trio.sleep(1.0)
            self.memory.append(process.memory_info().rss)
        self.percent = 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


def run(effort: Effort) -> Iterator[Figure]:
    """Record once: at true rate there is no faster way."""
    seconds = effort.pick(60, 4)
    watch = Watch(seconds)
    with scratch() as archive, ExitStack() as playing:
        ports = {name: _emulated(playing, name) for name in METERS}
        made = pack(recorded(archive, _collectors(ports), {"watch": watch}).path)
        with connect([made], "from power, gaps") as database:
            ((lost,),) = database.execute(
                "SELECT coalesce(sum(lost_rows), 0)::DOUBLE FROM gaps WHERE reason NOT ILIKE ?", [NOT_LOST]
            ).fetchall()
            means = dict(database.execute("SELECT sensor, avg(watts) FROM power GROUP BY ALL").fetchall())
        keys = {name: f"{name}.{stream}" for name, stream in STREAMS.items()}
        rows = sum(made.table(key).num_rows for key in keys.values())
    what = f"PPK2, PowerSensor3, LVPM and the host together, {seconds} s"
    yield Figure(f"{what}: rows of the meters", [rows / 1e6], "M")
    yield Figure(f"{what}: rows lost", [float(lost)], "", at_most(0))
    yield Figure(f"{what}: share of a core", [watch.percent], "%", at_most(30))
    first, last = (float(np.median(part)) for part in np.array_split(np.array(watch.memory), 3)[::2])
    yield Figure(f"{what}: memory, last third less first third", [max(last - first, 0.0)], "B", at_most(10e6))
    for name, watts in METERS.items():
        off = abs(means[keys[name]] / watts - 1)
        yield Figure(f"{what}: {name}, mean power off what was played", [100 * off], "%", at_most(1))


def _collectors(ports: dict[str, str]) -> dict[str, Collector]:
    return {
        "ppk2": Ppk2(3.7, port=ports["ppk2"]),
        "powersensor3": PowerSensor3(ports["powersensor3"]),
        "monsoon_lvpm": MonsoonLvpm(voltage=4.0, port=ports["monsoon_lvpm"]),
        "cpu": Cpu(hz=10),
        "cpu_estimate": CpuEstimate(hz=50),
        "memory": Memory(hz=5),
    }


def _emulated(playing: ExitStack, name: str) -> str:
    command = [
        sys.executable,
        "-m",
        "melt_stream",
        "emulate",
        name,
        "--load",
        f"constant:{METERS[name]}W",
        "--json",
    ]
    process = playing.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    playing.callback(process.terminate)
    assert process.stdout is not None
    place: dict[str, Any] = json.loads(process.stdout.readline())
    return str(place["port"])

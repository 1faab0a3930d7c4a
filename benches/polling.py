"""How late a poller of three small files reads, and its share of a core, beside a loop that only reads and sleeps.

What the engine, the journal and the readings of the host's clocks need when nothing is polled is measured in the same
rounds, and taken off where a figure says "alone". A battery's files are stood in for by three on the disk, which are
opened for each read, and by three of the loopback device's in /sys, whose descriptors are kept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches.figures import Figure, at_most
from benches.measure import Effort, ratios
from benches.recording import scratch, watched
from melt_stream.outlet import Row
from melt_stream.run import Run
from melt_stream.sensor import Files, FileSensor, Find
from melt_stream.stream import Stream
from melt_stream.units import A, V

RATES = (10, 100, 1000)
TREE = {"status": "Discharging\n", "voltage_now": "11412000\n", "current_now": "1187000\n"}
FOLDER = "sys/class/power_supply/BAT0"
LOOPBACK = [f"sys/class/net/lo/{name}" for name in ("mtu", "ifindex", "operstate")]


@dataclass
class Battery(FileSensor):
    """Three files, as a battery's."""

    stream = Stream("power", volts=V, amps=A, status=str)

    def files(self, find: Find) -> Mapping[str, str]:
        return {Path(path).name: path for path in find(f"{FOLDER}/*")}

    def parse(self, files: Files) -> Row:
        return {
            "volts": files.number("voltage_now", 1e-6),
            "amps": files.number("current_now", 1e-6),
            "status": files["status"],
        }


@dataclass
class Loopback(FileSensor):
    """Three files of the kernel's that every Linux host has, as a battery's."""

    stream = Battery.stream

    def files(self, find: Find) -> Mapping[str, str]:
        return {Path(path).name: path for name in LOOPBACK for path in find(name)}

    def parse(self, files: Files) -> Row:
        return {
            "volts": files.number("mtu", 1e-6),
            "amps": files.number("ifindex", 1e-6),
            "status": files["operstate"],
        }


def run(effort: Effort) -> Iterator[Figure]:
    """Every rate, several times in turn."""
    lateness: dict[int, list[Any]] = {hz: [] for hz in RATES}
    shares: dict[int, list[float]] = {hz: [] for hz in RATES}
    missed: dict[int, list[float]] = {hz: [] for hz in RATES}
    engine, plain, kernel, plain_kernel = [], [], [], []
    with scratch() as root:
        tree(root)
        for _ in range(effort.pick(3, 1)):
            engine.append(watched(root / "runs", {}, effort.pick(4, 1))[1])
            plain.append(loop([str(root / FOLDER / name) for name in TREE], 100, effort.pick(4, 1)))
            plain_kernel.append(loop([f"/{path}" for path in LOOPBACK], 100, effort.pick(4, 1)))
            loopback = Loopback(hz=100, jitter=False)
            kernel.append(watched(root / "runs", {"battery": loopback}, effort.pick(4, 1))[1])
            for hz in RATES:
                battery = Battery(root=str(root), hz=hz, jitter=False)
                recorded, share = watched(root / "runs", {"battery": battery}, effort.pick(4, 1))
                late, lost = lateness_of(recorded, hz)
                shares[hz].append(share)
                lateness[hz].append(late)
                missed[hz].append(lost)
    for hz in RATES:
        yield Figure(f"{hz} Hz: lateness, median", [float(np.median(late)) for late in lateness[hz]], "s")
        yield Figure(
            f"{hz} Hz: lateness, 99 %", [float(np.quantile(late, 0.99)) for late in lateness[hz]], "s"
        )
        yield Figure(f"{hz} Hz: slots missed", missed[hz], "%")
    yield Figure("an engine that records nothing: share of a core", engine, "%")
    for hz in RATES:
        yield Figure(f"{hz} Hz: share of a core, engine and poller", shares[hz], "%")
    alone = [share - nothing for share, nothing in zip(shares[100], engine, strict=True)]
    yield Figure("100 Hz: share of a core, the poller and its rows alone", alone, "%", at_most(2.0))
    yield Figure("100 Hz: a loop that reads and sleeps, share of a core", plain, "%")
    yield Figure("100 Hz: the poller and its rows alone / the loop", ratios(alone, plain), "x")
    of_kernel = [share - nothing for share, nothing in zip(kernel, engine, strict=True)]
    yield Figure(
        "100 Hz, files of /sys: share of a core, the poller and its rows alone", of_kernel, "%", at_most(2.0)
    )
    yield Figure("100 Hz, files of /sys: a loop that opens, reads and sleeps", plain_kernel, "%")
    yield Figure(
        "100 Hz, files of /sys: the poller and its rows alone / the loop",
        ratios(of_kernel, plain_kernel),
        "x",
    )


def lateness_of(recorded: Run, hz: int) -> tuple[Any, float]:
    """Return by how many seconds each read came after its slot, and the share of slots without one, in percent."""
    table = recorded.table("battery.power")
    before = table["tick"].to_numpy() - table["t_u"].to_numpy()
    since = (before - before[0]) / 1e9
    slots = np.floor(since * hz + 1e-3)
    return since - slots / hz, 100.0 * (1.0 - len(slots) / (slots[-1] + 1))


def loop(paths: Sequence[str], hz: int, seconds: float) -> float:
    """The share of a core of opening and reading three files and sleeping, no more."""
    cpu, wall = time.process_time(), time.perf_counter()
    for slot in range(1, round(seconds * hz) + 1):
        for path in paths:
            number = os.open(path, os.O_RDONLY)
            os.read(number, 4096)
            os.close(number)
        time.sleep(max(0.0, wall + slot / hz - time.perf_counter()))
    return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


def tree(root: Path) -> None:
    """Write the three files."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for name, text in TREE.items():
        (folder / name).write_text(text)

"""A real model's tokens, an emulated meter whose load follows them and whose clock runs 150 ppm off: the joules are right."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from melt_stream.analysis.pack import pack
from melt_stream.clock import monotonic
from melt_stream.collector import Workload
from melt_stream.collectors.llama import Llama
from melt_stream.collectors.ppk2 import Ppk2
from melt_stream.emulators import Faults, Load
from melt_stream.emulators.ppk2 import Ppk2 as Emulator
from melt_stream.emulators.ppk2 import step
from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.run import Run, create
from melt_stream.sinks.journal import Journal

IDLE, PREFILL, DECODE = 1.0, 3.0, (2.0, 4.0)
VOLTS = 3.7

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.model,
    pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}"),
]


@dataclass
class Drawn:
    """Watts from each of some host times on."""

    at: list[int] = field(default_factory=lambda: [0])
    watts: list[float] = field(default_factory=lambda: [IDLE])

    def set(self, watts: float) -> None:
        self.watts.append(watts)
        self.at.append(monotonic())

    def value(self, host_ns: np.ndarray) -> np.ndarray:
        return np.array(self.watts)[np.searchsorted(np.array(self.at), host_ns, "right") - 1]

    def joules(self, start: int, stop: int) -> float:
        inside = [at for at in self.at if start < at < stop]
        edges = np.array([start, *inside, stop], np.int64)
        return float(np.sum(self.value(edges[:-1]) * np.diff(edges)) * 1e-9)


@dataclass
class Following:
    """Runs a workload, and lets the load know what it says."""

    workload: Workload
    drawn: Drawn

    async def collect(self, out: Outlet) -> None:
        row = out.row

        def heard(stream: Any, /, **values: Any) -> None:
            match values.get("kind"):
                case "request_sent":
                    self.drawn.set(PREFILL)
                case "token":
                    self.drawn.set(DECODE[values["index"] % 2])
                case "request_end":
                    self.drawn.set(IDLE)
            row(stream, **values)

        out.row = heard  # type: ignore[method-assign]
        await self.workload.collect(out)


async def recorded(folder: Any, emulator: Emulator, drawn: Drawn) -> Any:
    ask = Llama(prompts=["What is a joule?", "Why is the sky blue?"], max_tokens=24, ignore_eos=True)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        meter = Ppk2(VOLTS, port=str(place["port"]))
        ending = await record(
            {"meter": meter}, [Journal(folder)], {"llama": Following(ask, drawn)}, baseline=0.5
        )
        nursery.cancel_scope.cancel()
    return ending


def metered(archive: Path) -> tuple[Run, Drawn, Emulator]:
    drawn, emulator = Drawn(), Emulator(faults=Faults.parse(["rate:150"]))
    emulator.load = Load.live(lambda seconds: drawn.value(emulator.began + seconds * 1e9))
    with create(archive, recipe={}) as folder:
        ending = trio.run(partial(recorded, folder, emulator, drawn))
        assert (ending.reason, ending.error) == ("workloads ended", None)
        folder.finish(ending.reason)
    return pack(folder.path), drawn, emulator


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Drawn, Emulator]:
    return metered(tmp_path_factory.mktemp("metered"))


def clock_part(row: dict[str, Any]) -> float:
    """What the clock adds to a row's uncertainty, J."""
    return (row["joules_hi"] - row["joules_lo"]) / 2 / math.sqrt(3)


def test_every_phases_joules_are_right_within_their_uncertainty(story):
    run, drawn, _ = story
    begin = run.manifest.start_ns
    rows = [row for row in run.table("phases").to_pylist() if row["phase"] in ("prefill", "decode")]
    assert [(row["request"], row["phase"]) for row in sorted(rows, key=lambda row: row["start_ns"])] == [
        (request, phase) for request in (1, 2) for phase in ("prefill", "decode")
    ]
    for row in rows:
        truth = drawn.joules(begin + row["start_ns"], begin + row["stop_ns"])
        coarse = step(PREFILL / VOLTS) * VOLTS / 2 * row["seconds"]  # the box's own counts
        assert row["coverage"] == pytest.approx(1.0, abs=1e-3)
        assert row["joules_lo"] - coarse <= truth <= row["joules_hi"] + coarse
        assert abs(row["joules"] - truth) <= row["joules_u"]
        assert row["joules"] == pytest.approx(truth, rel=0.005)
        ideal = math.sqrt(row["joules_u"] ** 2 - clock_part(row) ** 2)
        assert row["joules_u"] <= 2 * ideal


def test_every_tokens_joules_are_right_within_their_uncertainty(story):
    run, drawn, _ = story
    begin = run.manifest.start_ns
    rows = [row for row in run.table("tokens").to_pylist() if row["index"] > 0]
    assert len(rows) == 2 * 23
    for row in rows:
        truth = drawn.joules(begin + row["start_ns"], begin + row["stop_ns"])
        assert abs(row["joules"] - truth) <= 2 * row["joules_u"]


def test_the_meters_clock_is_seen_to_run_fast_and_its_bound_holds(story):
    run, _, emulator = story
    (clock,) = [row for row in run.table("clocks").to_pylist() if row["clock"] == "meter.sample"]
    assert abs(clock["drift_ppm"] + 150) <= clock["drift_bound_ppm"] + 1
    samples = run.table("meter.power")
    tick = samples["tick"].to_numpy()
    seen = run.manifest.start_ns + samples["t_ns"].to_numpy()
    lead = 1000  # samples that the collector leaves out at the start
    true = emulator.started + (tick + lead) * (1e4 / (1 + 150e-6))
    off = true - seen
    assert np.max(off) <= clock["bound_ns"]
    assert clock["latency_ns"] is None or -np.min(off) <= clock["latency_ns"]

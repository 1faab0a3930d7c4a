"""The examples of a phone and a board, against emulated ones: a real model there, rails that follow its tokens, a link that drops once."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from melt_stream.analysis.clocks import Maps, fit
from melt_stream.cli._app import run as cli
from melt_stream.collectors.llama import Llama
from melt_stream.emulators import Faults, Load
from melt_stream.emulators._activity import Activity
from melt_stream.emulators.android import Android
from melt_stream.emulators.jetson import Jetson
from melt_stream.internal import READINGS
from melt_stream.run import Run
from tests.emulators.playing_android import ADBS, serving

EXAMPLES = Path(__file__).parents[1] / "examples"
AHEAD_S, PPM, AWAY_S = 0.037, 80, 0.5
DROPPED = 2
"""The answer in which the link is lost."""
NS = 1e-9

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.model,
    pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}"),
    pytest.mark.skipif(
        shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="expected root, for a device's own /sys"),
]


def documented(example: str) -> dict[str, str]:
    """The settings of the emulator in the example's own words, by name; ``load`` and ``fault`` as given."""
    found = re.search(
        r"emulate (\w+):(\S+) --load (\S+) --fault (\S+)", (EXAMPLES / f"{example}.toml").read_text()
    )
    assert found is not None
    kind, settings, load, fault = found.groups()
    assert (kind, fault) == (example, f"rate:{PPM}")
    return dict(word.split("=") for word in settings.split(",")) | {"load": load}


@dataclass
class Story:
    """One run, and what the device knows of it."""

    run: Run
    emulator: Any
    device: str

    @property
    def begin(self) -> int:
        return self.run.manifest.start_ns

    @property
    def activity(self) -> Activity:
        """The device's own record of what it drew."""
        return self.emulator.load.activity

    def late(self, start: int, stop: int) -> float:
        """How many joules the device's files were late by, where it was kept from bringing them up to date in time."""
        nominal = self.emulator.gauge_s if self.device == "phone" else 1 / self.emulator.update_hz
        return max(self.activity.latest(start, stop) - 1.5 * nominal, 0.0) * max(
            np.abs(np.diff(self.activity.watts))
        )

    def phases(self) -> list[dict[str, Any]]:
        rows = [row for row in self.run.table("phases").to_pylist() if row["phase"] in {"prefill", "decode"}]
        return sorted(rows, key=lambda row: row["start_ns"])

    def maps(self) -> Maps:
        return fit(self.run.table("run.readings").select(READINGS.schema.names).cast(READINGS.schema))


async def told(device: str, example: str, changed: dict[str, str], emulator: Any, archive: Path) -> Story:
    """Run the example; drop the link in the middle of an answer."""
    text = (EXAMPLES / f"{example}.toml").read_text()
    for old, new in changed.items():
        assert old in text, "the example's one line"
        text = text.replace(old, new)
    text = text.replace("max_tokens = 48", "max_tokens = 40\nignore_eos = true")
    recipe_file = archive.parent / f"{example}.toml"
    recipe_file.write_text(text)
    words = [
        sys.executable,
        "-m",
        "melt_stream",
        "run",
        str(recipe_file),
        "--archive",
        str(archive),
        "--json",
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_drop, emulator)
        done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)
        nursery.cancel_scope.cancel()
    assert done.returncode == 0, done.stderr.decode()
    return Story(Run(Path(json.loads(done.stdout)["path"])), emulator, device)


async def _drop(emulator: Any) -> None:
    activity = emulator.load.activity
    while activity.drew.count(activity.watts[2]) < DROPPED:  # noqa: ASYNC110 - the record of the load says nothing by itself
        await trio.sleep(0.005)
    await trio.sleep(0.05)
    done = emulator.unplug(AWAY_S)
    if done is not None:
        await done


async def phone(archive: Path) -> Story:
    said = documented("android")
    emulator = Android(
        load=Load.parse(said["load"]), faults=Faults.parse([f"rate:{PPM}"]), gauge_s=float(said["gauge_s"]),
        ahead_ms=float(said["ahead_ms"]),
    )  # fmt: skip
    assert emulator.ahead_ms == AHEAD_S * 1000
    with serving(ADBS[0]) as adb:
        async with trio.open_nursery() as nursery:
            place = await nursery.start(emulator.play)
            there = f'adb = "{place["serial"]}", port = {adb.port}'
            story = await told(
                "phone", "android", {f'adb = "127.0.0.1:{said["port"]}"': there}, emulator, archive
            )
            nursery.cancel_scope.cancel()
    return story


async def board(archive: Path) -> Story:
    said = documented("jetson")
    emulator = Jetson(
        load=Load.parse(said["load"]), faults=Faults.parse([f"rate:{PPM}"]), offset_s=float(said["offset_s"]), update_hz=float(said["update_hz"]),
        keys=str(archive.parent / said["keys"]),
    )  # fmt: skip
    assert emulator.offset_s == AHEAD_S
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        changed = {f'@127.0.0.1:{said["port"]}"': f'@127.0.0.1:{place["tcp_port"]}"'}
        changed |= {
            f'"{said["keys"]}/{name}"': f'"{place[key]}"'
            for name, key in (("id", "identity"), ("known_hosts",) * 2)
        }
        story = await told("orin", "jetson", changed, emulator, archive)
        nursery.cancel_scope.cancel()
    return story


@pytest.fixture(scope="module", params=[phone, board], ids=["android", "jetson"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    return trio.run(request.param, tmp_path_factory.mktemp("device") / "archive")


def test_every_phases_joules_are_right_within_their_uncertainty(story):
    rows = story.phases()
    assert {(row["request"], row["phase"]) for row in rows} == {
        (n, p) for n in (1, 2, 3) for p in ("prefill", "decode")
    }
    whole = [row for row in rows if row["coverage"] >= 0.999 and row["request"] != DROPPED]
    assert len(whole) >= 2  # a busy machine leaves gaps
    for row in whole:
        span = story.begin + row["start_ns"], story.begin + row["stop_ns"]
        truth, late = story.activity.joules(*span), story.late(*span)
        print(
            f"{row['request']} {row['phase']}: {row['joules']:.4f} +- {row['joules_u']:.4f} J, true {truth:.4f} +- {late:.4f}"
        )
        assert abs(row["joules"] - truth) <= 2 * row["joules_u"] + late
        clock = (row["joules_hi"] - row["joules_lo"]) / 2 / math.sqrt(3)
        assert row["joules_u"] <= 2 * math.sqrt(row["joules_u"] ** 2 - clock**2)
        assert row["joules"] == pytest.approx(truth, rel=0.05, abs=late)


def test_the_bounds_of_the_devices_clock_and_of_its_servers_hold(story):
    run, maps = story.run, story.maps()
    wall = [row for row in run.table("run.readings").to_pylist() if row["clock_of"] == "host.realtime"]
    middle = (wall[0]["not_before"] + wall[0]["not_after"]) / 2
    clock = f"{story.device}.realtime"
    ticks = [row["count"] for row in run.table("run.readings").to_pylist() if row["clock_of"] == clock]
    for tick in (ticks[0], ticks[len(ticks) // 2], ticks[-1]):
        host = maps.to_host(clock, 0, np.array([tick], np.int64))
        assert host is not None
        low, high = maps.bound(clock, 0, host)
        ahead = tick * 1000 - (wall[0]["count"] + host[0] - middle)
        true = AHEAD_S * 1e9 + PPM * 1e-6 * (
            host[0] - story.emulator.began
        )  # it was switched on a little before
        assert low[0] - 5e4 <= ahead - true <= high[0] + 5e4
    assert {maps.of("llama.process", epoch).kind for epoch in (0, 1)} == {"two_way"}, "it was started twice"
    activity = story.activity
    seen = [at for at, watts in zip(activity.at, activity.drew, strict=True) if watts == activity.watts[2]]
    prefills = {row["request"]: row for row in story.phases() if row["phase"] == "prefill"}
    for request, noticed in zip((1, 2, 3), seen, strict=False):
        stop = np.array([story.begin + prefills[request]["stop_ns"]], np.int64)
        low, _ = maps.bound("llama.server", request, stop)
        assert stop[0] + low[0] <= noticed, "the device answers no sooner than it has done the prompt"


def test_the_drop_is_a_gap_and_an_error_and_the_next_prompt_is_answered(story):
    events = story.run.table("llama.events").to_pylist()
    ended = {row["request"]: row for row in events if row["kind"] in {"request_end", "request_error"}}
    assert {n: row["kind"] for n, row in ended.items()} == {
        1: "request_end",
        2: "request_error",
        3: "request_end",
    }
    assert (
        "link" in json.loads(ended[DROPPED]["detail"])["error"]
        or "Error" in json.loads(ended[DROPPED]["detail"])["error"]
    )
    kept = [row for row in story.run.table("tokens").to_pylist() if row["request"] == DROPPED]
    assert 0 < len(kept) < 40
    power = "battery" if story.device == "phone" else "ina3221"
    gaps = [row for row in story.run.table("gaps").to_pylist() if row["instance"] == power]
    assert max((row["stop_ns"] - row["start_ns"]) * NS for row in gaps if row["stop_ns"]) >= AWAY_S * 0.9
    assert sum(row["kind"] == "load_start" for row in events) == 2


def test_sql_has_the_same_numbers(story, capsys):
    asked = "SELECT request, phase, joules, joules_u FROM phases WHERE phase IN ('prefill', 'decode') ORDER BY start_ns"
    archive = str(story.run.path.parent)
    assert cli(("sql", asked, "--archive", archive, "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    ours = [
        {name: row[name] for name in ("request", "phase", "joules", "joules_u")} for row in story.phases()
    ]
    assert said == ours

"""The example study on this machine, an emulated phone (a real adb server) and an emulated board (a real sshd), killed twice on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from melt_stream.analysis.archive import connect
from melt_stream.cli._app import run as cli
from melt_stream.collectors.llama import Llama
from melt_stream.emulators import Load
from melt_stream.emulators.android import Android
from melt_stream.emulators.jetson import Jetson
from tests.emulators.playing_android import ADBS, serving

EXAMPLE = Path(__file__).parents[1] / "examples" / "study.toml"
RUNS = 6
"""Two widths on three devices, once each."""

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.model,
    pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="expected root, for a device's own /sys"),
]


def study_for(folder: Path, phone: str, board: str) -> Path:
    """The example with its devices' two lines changed, and shorter."""
    text = EXAMPLE.read_text()
    for pattern, new in (
        (r"phone = \{ adb.*\}", phone), (r"orin = \{ ssh.*\}", board), (r"repeat = 3", "repeat = 1"), (r"q3_k_s = .*\n", ""),
        (r"examples/perplexity\.txt", str(EXAMPLE.with_name("perplexity.txt"))),
    ):  # fmt: skip
        text, count = re.subn(pattern, new.replace("\\", r"\\"), text)
        assert count == 1, pattern
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


def words(study: Path, archive: Path) -> list[str]:
    return [sys.executable, "-m", "melt_stream", "run", str(study), "--archive", str(archive)]


def begun(archive: Path) -> int:
    return len([*archive.glob("2*/manifest.json")])


async def killed_at(study: Path, archive: Path, number: int) -> None:
    """Kill the study's process when so many runs have begun."""
    process = await trio.lowlevel.open_process(
        words(study, archive), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with trio.fail_after(90):
        while begun(archive) < number:
            assert process.poll() is None
            await trio.sleep(0.02)
    process.kill()
    await process.wait()


async def made(folder: Path) -> tuple[Path, str]:
    phone, board = (
        Android(load=Load.parse("follow:1W,6W,4W"), gauge_s=0.02),
        Jetson(load=Load.parse("follow:8W,30W,20W"), update_hz=100),
    )
    archive = folder / "archive"
    with serving(ADBS[0]) as adb:
        async with trio.open_nursery() as nursery:
            there, here = await nursery.start(phone.play), await nursery.start(board.play)
            study = study_for(
                folder,
                f'phone = {{ adb = "{there["serial"]}", port = {adb.port} }}',
                f'orin = {{ ssh = "nvidia@127.0.0.1:{here["tcp_port"]}", config = [], identity = "{here["identity"]}", known_hosts = "{here["known_hosts"]}" }}',
            )
            await killed_at(study, archive, 2)
            await killed_at(study, archive, 4)
            done = await trio.run_process(words(study, archive), capture_stderr=True, check=False)
            nursery.cancel_scope.cancel()
    return archive, f"{done.returncode}\n{done.stderr.decode()}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("adb") is None or shutil.which("sshd") is None:
        pytest.skip("expected adb and sshd: apt-get install adb openssh-server")
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELT_STREAM_ZOO", str(folder / "zoo"))
        made_in, said = trio.run(made, folder)
    assert said.startswith("0\n"), said
    return made_in


def ask(archive: Path, query: str) -> list[tuple[object, ...]]:
    return connect(archive, query).sql(query).fetchall()


@pytest.mark.timeout(240)
def test_every_run_is_made_once_though_it_was_killed_twice(archive):
    query = "SELECT outcome, count(*), count(DISTINCT cell) FROM runs GROUP BY outcome ORDER BY outcome"
    assert ask(archive, query) == [("done", RUNS, RUNS), ("interrupted", 2, 2)]


def test_each_device_answered_with_each_width_and_drew_what_its_load_says(archive):
    rows = ask(archive, """
        SELECT points->>'device', points->>'quantisation', p.device, boundary, m.quantisation, min(mean_w), max(mean_w)
        FROM runs JOIN phases p USING (run) JOIN models m USING (run)
        WHERE outcome = 'done' AND phase = 'decode' AND m.instance = 'llama' AND coverage >= 0.99 GROUP BY ALL
    """)  # fmt: skip
    seen = {
        (device, width): (where, boundary, low, high) for device, width, where, boundary, _, low, high in rows
    }
    assert {m for *_, m, _, _ in rows} == {"Q8_0", "Q4_0"}
    for (device, _), (where, boundary, low, high) in seen.items():
        if device == "phone":
            assert (where, boundary) == ("phone", "battery")
            assert 3.0 < low <= high < 5.5  # 4 W while it decodes
        if device == "board":
            assert (where, boundary) == ("orin", "board")
            assert 15.0 < low <= high < 26.0
    assert len(seen) >= 4  # a busy machine may leave gaps in some


def test_the_report_has_energy_speed_perplexity_and_the_front(archive, capsys):
    tables = archive.parent / "tables"
    assert cli(["report", "widths", "--archive", str(archive), "--tables", str(tables), "--json"]) == 0
    text = Path(json.loads(capsys.readouterr().out)["report"]).read_text()
    for words_ in (
        "J/output token by device",
        "perplexity against energy",
        "on the front",
        "phone",
        "orin",
    ):
        assert words_ in text
    flat = (tables / "cells.csv").read_text()
    assert flat.count("perplexity.txt perplexity") == RUNS  # the other devices run the same files


def test_two_widths_are_compared_with_an_interval(archive, capsys):
    sides = [
        f"{q}=points->>'quantisation' = '{q}' AND points->>'device' = 'laptop' AND outcome = 'done'"
        for q in ("q8_0", "q4_0")
    ]
    assert cli(["compare", *sides, "--archive", str(archive), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = {one["metric"]: one for one in told["results"]}["decode.tokens_per_s"]
    assert found["pairs"] == 2  # single runs: the two prompts are pairs
    assert found["low"] < found["change"] < found["high"]
    assert "recipe.workloads.llama.model" in told["differing"]

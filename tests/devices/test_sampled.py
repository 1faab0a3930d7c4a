"""Sensors of files, read by the loop in a real shell: rows on the device's clock, which is tied to ours from both sides."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import trio

from melt_stream import A, FileSensor, Rail, Stream, V
from melt_stream.analysis.clocks import fit
from melt_stream.devices import Boots, Gone, Local, Sampled, run
from melt_stream.devices.runner import Runner
from melt_stream.engine import record
from melt_stream.errors import DeviceError, Transient
from melt_stream.internal import READINGS
from melt_stream.outlet import Hub, Outlet
from melt_stream.sensor import Constant
from melt_stream.testing import FakeTree, Keep

BAT = "sys/class/power_supply/BAT0/"
FILES = {BAT + "voltage_now": "7700000\n", BAT + "current_now": "500000\n", BAT + "model_name": "it's odd\n"}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")


@dataclass
class Pack(FileSensor):
    stream = Stream("power", volts=V, amps=A, model=str)
    rail = Rail("pack", boundary="battery", kind="gauge")

    def files(self, find):
        found = {path.rsplit("/", 1)[1]: path for path in find("sys/class/power_supply/BAT*/*_now")}
        return found and {**found, "model_name": Constant(BAT + "model_name")}

    def parse(self, files):
        return {
            "volts": int(files["voltage_now"]) / 1e6, "amps": files.number("current_now", 1e-6),
            "model": files["model_name"],
        }  # fmt: skip


@dataclass
class Until:
    """A workload that ends when its condition holds; asked at each flush."""

    holds: Callable[[], bool]

    async def collect(self, out: Outlet) -> None:
        while not self.holds():
            await out.flushing()


@dataclass
class Watched(Local):
    """This machine, which remembers the loops that it ran."""

    name: str = "board"
    lines: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def channel(self, command: str):
        self.lines.append(command)
        async with super().channel(command) as channel:
            yield channel


def processes(text: str) -> list[int]:
    """Those whose command line has this text."""
    listed = subprocess.run(["pgrep", "-f", text], check=False, capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


async def recorded(sampled: Sampled, enough: int):
    keep = Keep()
    with trio.fail_after(60):
        ending = await record(
            {"it": sampled}, [keep], {"until": Until(lambda: len(keep.rows("it.power")) >= enough)},
            devices={"it": "board"}, flush_every=0.01,
        )  # fmt: skip
    return keep, ending


async def told(story, keep, tree, flush_every):
    """Record the pack at 50 Hz for as long as a story takes."""
    with trio.fail_after(60):
        sampled = Sampled(Pack(hz=50, root=str(tree.root)), Watched())
        ending = await record({"it": sampled}, [keep], {"story": story}, flush_every=flush_every)
    assert ending.error is None


async def test_its_rows_are_on_the_devices_clock_with_readings_from_both_sides(tmp_path):
    tree = FakeTree(tmp_path, FILES)
    keep, ending = await recorded(Sampled(Pack(hz=50, root=str(tree.root)), Watched()), 20)
    assert (ending.reason, ending.error) == ("workloads ended", None)
    rows = keep.rows("it.power")
    assert {(row["volts"], row["amps"], row["model"], row["epoch"]) for row in rows} == {
        (7.7, 0.5, "it's odd", 0)
    }
    assert all(row["t_u"] >= 500 for row in rows)  # a look at the clock is good to a microsecond
    readings = [row for row in keep.rows("run.readings") if row["clock_of"] == "board.realtime"]
    assert len(readings) >= 16
    assert {row["kind"] for row in readings} == {"round_trip"}
    maps = fit(keep.table("run.readings").cast(READINGS.schema))
    assert len(maps.of("board.realtime").segments) == 1
    wall = [row for row in keep.rows("run.readings") if row["clock_of"] == "host.realtime"]
    offset = wall[0]["count"] - (wall[0]["not_before"] + wall[0]["not_after"]) / 2
    for row in (
        rows[0],
        rows[-1],
    ):  # the device is this machine: its clock's map is that of our own wall clock
        host = maps.to_host("board.realtime", 0, np.array([row["tick"]], np.int64))
        low, high = maps.bound("board.realtime", 0, host)
        assert low[0] - 1e6 <= row["tick"] * 1000 - offset - host[0] <= high[0] + 1e6
    (loop,) = [row for row in keep.rows("run.facts") if row["name"] == "loop"]
    assert '"kind": "' in loop["value"]
    assert '"cpu_s": null' not in loop["value"]


async def test_a_file_that_goes_costs_its_column_and_one_that_must_be_there_the_row(tmp_path):
    tree = FakeTree(tmp_path, FILES)
    keep = Keep()

    class Story:
        async def collect(self, out):
            while len(keep.rows("it.power")) < 5:
                await out.flushing()
            (tree.root / BAT / "current_now").unlink()
            while not any(row["amps"] is None for row in keep.rows("it.power")):
                await out.flushing()
            (tree.root / BAT / "voltage_now").unlink()
            count = -1
            while len(keep.rows("it.power")) != count:
                count = len(keep.rows("it.power"))
                await out.flushing()
                await out.flushing()

    await told(Story(), keep, tree, flush_every=0.05)
    rows = keep.rows("it.power")
    assert rows[-1]["amps"] is None
    gaps = [row for row in keep.rows("run.gaps") if "unreadable" in row["reason"]]
    assert [gap["stream"] for gap in gaps] == ["power"]
    assert gaps[0]["start"] >= rows[-1]["tick"]


async def test_a_loop_that_dies_is_gone_with_a_gap_and_comes_back(tmp_path):
    tree = FakeTree(tmp_path, FILES)
    keep = Keep()

    class Story:
        async def collect(self, out):
            while len(keep.rows("it.power")) < 10:
                await out.flushing()
            for pid in processes(str(tree.root)):
                os.kill(pid, signal.SIGKILL)
            count = len(keep.rows("it.power"))
            while len(keep.rows("it.power")) < count + 15:
                await out.flushing()

    await told(Story(), keep, tree, flush_every=0.01)
    assert any("expected samples, got the end of the loop" in row["reason"] for row in keep.rows("run.gaps"))
    assert {row["epoch"] for row in keep.rows("it.power")} == {0}  # it is the same boot


@pytest.mark.skipif(shutil.which("dash") is None, reason="expected dash")
@pytest.mark.parametrize(
    ("kind", "base", "t_u"), [("date", "realtime", 500), ("uptime", "uptime", 5_000_000)]
)
async def test_a_board_without_such_a_shell_samples_slower_and_its_times_say_how_sure_they_are(
    kind, base, t_u, tmp_path
):
    tree = FakeTree(tmp_path, FILES)
    boots = Boots(runner=Runner(kind, ("dash",)))
    keep, ending = await recorded(Sampled(Pack(hz=50, root=str(tree.root)), Watched(), boots), 8)
    assert (ending.reason, ending.error) == ("workloads ended", None)
    rows = keep.rows("it.power")
    assert all(row["t_u"] >= t_u for row in rows)
    assert (
        min(b["tick"] - a["tick"] for a, b in itertools.pairwise(rows[1:])) > 20_000
    )  # us: not the 50 Hz that were asked
    readings = [row for row in keep.rows("run.readings") if row["clock_of"] == f"board.{base}"]
    assert len(readings) >= 16
    maps = fit(keep.table("run.readings").cast(READINGS.schema))
    if base == "uptime":  # this machine's time since its boot is a clock of ours too
        host = maps.to_host("board.uptime", 0, np.array([rows[-1]["tick"]], np.int64))
        low, high = maps.bound("board.uptime", 0, host)
        ours = maps.to_host("host.boottime", 0, np.array([rows[-1]["tick"] * 1000], np.int64))
        assert low[0] - 20e6 <= ours[0] - host[0] <= high[0] + 20e6
    (loop,) = [row for row in keep.rows("run.facts") if row["name"] == "loop"]
    assert json.loads(loop["value"]).items() >= {"kind": kind, "words": "dash", "hz": 10.0}.items()
    spent = json.loads(loop["value"])["cpu_s"]
    assert spent > 0 if kind == "date" else spent >= 0  # with the processes that it started


async def test_nothing_of_the_loop_outlives_the_recording(tmp_path):
    tree = FakeTree(tmp_path, FILES)
    await recorded(Sampled(Pack(hz=50, root=str(tree.root)), Watched()), 3)
    assert processes(str(tree.root)) == []


async def test_a_device_without_such_files_or_without_a_shell_that_can_is_told(tmp_path, monkeypatch):
    out = Hub().outlet("it", "board")
    with pytest.raises(DeviceError, match="board: expected files of Pack below"):
        await Sampled(Pack(root=str(tmp_path)), Watched()).collect(out)
    monkeypatch.setattr("melt_stream.devices.place.probe", lambda: "true")
    with pytest.raises(DeviceError, match=r"board: expected a shell with EPOCHREALTIME"):
        await Sampled(Pack(root=str(tmp_path)), Watched()).collect(out)


async def test_a_command_is_run_to_its_end_and_no_longer_than_it_may(tmp_path):
    device = Local()
    done = await run(device, ["sh", "-c", "cat; echo 'so so' >&2; exit 7"], stdin=b"in\n")
    assert (done.status, done.out, done.complaints) == (7, b"in\n", "so so")
    with pytest.raises(Transient, match=r"sleep 60: expected its end within 0.1 s"):
        await run(device, ["sleep", "60"], deadline_s=0.1)
    with pytest.raises(Gone, match="expected the shell /no/sh"):
        await run(Local(shell="/no/sh"), ["true"])
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    await device.push(tmp_path / "a", str(tmp_path / "b"))
    await device.pull(str(tmp_path / "b"), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"x" * 100_000
    async with device.forward(1234) as port:
        assert port == 1234

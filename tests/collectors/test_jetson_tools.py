"""Tools of a Jetson, live, on an emulated one behind a real sshd: its clock, its rails, and what happens when a tool fails."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.archive import connect
from melt_stream.analysis.clocks import fit
from melt_stream.analysis.pack import pack
from melt_stream.cli._app import run as cli
from melt_stream.collectors._jtop import record, said
from melt_stream.collectors._jtop_example import MODULE
from melt_stream.collectors._jtop_example import SHIM as SHIM_OF_JTOP
from melt_stream.collectors._nvidia_smi_example import SHIM
from melt_stream.collectors.ina3221 import Ina3221
from melt_stream.collectors.jtop import Jtop
from melt_stream.collectors.tegrastats import Tegrastats
from melt_stream.devices import Local, Place, Sampled
from melt_stream.emulators import Faults, Load
from melt_stream.emulators.jetson import Jetson
from melt_stream.engine import record as engine
from melt_stream.errors import ConfigError, DataError, DeviceError
from melt_stream.internal import READINGS
from melt_stream.run import create
from melt_stream.sinks.journal import Journal
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting
from tests.emulators.board import board, needed, reached

PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
bash = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
python = pytest.mark.skipif(
    PYTHON is None, reason="expected a python3 on the machine: apt-get install python3"
)
LINE = "RAM 2448/7772MB (lfb 4x4MB) CPU [3%@1510,off] cpu@43.9C VDD_IN 4120mW/4120mW"
RAILS = {"VDD_GPU_SOC": 9.976, "VDD_CPU_CV": 3.988, "VIN_SYS_5V0": 6.009}
"""Of a load of 20 W, in the chips' steps, as tegrastats prints them."""


def printing(tmp_path, script):
    """A tool of our own."""
    tool = tmp_path / "tool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return Tegrastats(tool=[str(tool)], interval_ms=20.0, patience_s=2.0)


@needed
@pytest.mark.parametrize("generation", [4, 6, 7])
async def test_tegrastats_of_each_generation_on_the_boards_clock(generation):
    jetson = Jetson(load=Load.parse("constant:20W"), generation=generation, offset_s=0.0)
    async with board(jetson) as place:
        there = Tegrastats(interval_ms=50.0).on(Place(reached(place)))
        async with collecting(there) as watched:
            await watched.until(lambda: len(watched.of("state")) >= 4)
    power = watched.of("power")
    assert {row["rail"]: row["watts"] for row in power} == pytest.approx(
        {**RAILS, "total": sum(RAILS.values())}
    )
    assert {row["epoch"] for row in power} == {0}
    assert {row["t_u"] for row in power} == {None}
    rails = {rail["name"]: rail for rail in watched.rows("run.rails")}
    assert {name: (rail["boundary"], rail["parent"], rail["kind"]) for name, rail in rails.items()} == {
        "total": ("board", None, "gauge"), **dict.fromkeys(RAILS, ("rail", "total", "gauge")),
    }  # fmt: skip
    assert {rail["clock_of"] for rail in rails.values()} == {"orin.realtime"}
    state, cores = watched.of("state")[0], watched.of("cores")
    assert (state["date"] is None) == (generation == 4)
    assert (state["cpu_load"], state["cpu_hz"]) == (8.5, 1190e6)
    assert {(row["core"], row["load"], row["frequency"]) for row in cores} == {
        (0, 12, 1190e6),
        (1, 5, 1190e6),
    }
    assert any(row["celsius"] > 40 for row in watched.of("thermal"))
    maps = fit(watched.table("run.readings").cast(READINGS.schema))
    ticks = np.array([row["tick"] for row in power], np.int64)
    seen = [row["tick"] for row in watched.rows("run.readings")]
    host = maps.to_host("orin.realtime", 0, ticks)
    assert min(seen) - 5e9 < host.min() <= host.max() < max(seen) + 5e9
    assert all("no line came" in gap["reason"] for gap in watched.gaps())  # of a machine that is busy


@needed
@pytest.mark.skipif(shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime")
async def test_the_boards_clock_that_is_off_is_tied_to_ours():
    async with board(Jetson(offset_s=37.037)) as place:
        there = Tegrastats(interval_ms=50.0).on(Place(reached(place)))
        async with collecting(there) as watched:
            await watched.until(lambda: len(watched.of("state")) >= 6)
    maps = fit(watched.table("run.readings").cast(READINGS.schema))
    ticks = np.array([row["tick"] for row in watched.of("state")], np.int64)
    host = maps.to_host("orin.realtime", 0, ticks)
    wall = next(row for row in watched.rows("run.readings") if row["clock_of"] == "host.realtime")
    ahead = ticks * 1000 - host - (wall["count"] - (wall["not_before"] + wall["not_after"]) // 2)
    low, high = maps.bound("orin.realtime", 0, host)
    assert (ahead + low - 1e6 <= 37.037e9).all()
    assert (ahead + high + 1e6 >= 37.037e9).all()
    assert (high - low < 1e9).all()


@needed
async def test_a_cable_that_is_pulled_is_a_gap_and_the_tool_is_started_again():
    jetson = Jetson(faults=Faults.parse(["unplug@2:0.3"]))
    async with board(jetson) as place:
        there = Tegrastats(interval_ms=50.0, patience_s=5.0).on(Place(reached(place)))
        async with collecting(there) as watched:
            await watched.until(
                lambda: [gap for gap in watched.gaps("power") if "Gone" in gap["reason"]], seconds=40
            )
            (gap, *_) = [gap for gap in watched.gaps("power") if "Gone" in gap["reason"]]
            await watched.until(lambda: watched.of("power")[-1]["tick"] > gap["stop"] + 200_000)
    assert [done.kind for done in jetson.faults.done] == ["unplug"]
    assert {row["epoch"] for row in watched.of("power")} == {0}  # it is the same boot


@bash
async def test_nothing_of_a_tool_outlives_its_collector(tmp_path):
    """The helper in the board's python, and the loop that shows its clock."""
    mark = f"# {tmp_path}"
    there = Jtop(python=[sys.executable, "-c", f"{SHIM_OF_JTOP}\n{mark}"], interval_ms=20.0).on(
        Place(Local("board"))
    )
    async with collecting(there) as watched:
        await watched.until(lambda: watched.of("power"))
    with trio.fail_after(10):
        while (
            await trio.run_process(["pgrep", "-f", str(tmp_path)], check=False, capture_stdout=True)
        ).stdout:
            pass


@needed
@python
async def test_jtop_is_asked_by_the_boards_own_python_and_its_total_counts_no_rail_twice():
    jetson = Jetson(load=Load.parse("constant:20W"))
    async with board(jetson) as place:
        there = Jtop(interval_ms=50.0).on(Place(reached(place)))
        async with collecting(there) as watched:
            await watched.until(lambda: len(watched.of("state")) >= 3)
    last = {row["rail"]: row for row in watched.of("power")}
    assert {name: row["watts"] for name, row in last.items()} == pytest.approx(
        {
            "VDD_GPU_SOC": 9.976,
            "VDD_CPU_CV": 3.988,
            "VIN_SYS_5V0": 6.009,
            "VDDQ_VDD2_1V8AO": 2.006,
            "total": 19.973,
        }
    )
    assert (last["VDD_GPU_SOC"]["volts"], last["VDD_GPU_SOC"]["amps"]) == pytest.approx((19.952, 0.5))
    rails = {rail["name"]: rail["parent"] for rail in watched.rows("run.rails")}
    assert (rails["VDDQ_VDD2_1V8AO"], rails["VDD_CPU_CV"], rails["total"]) == ("VIN_SYS_5V0", "total", None)
    state = watched.of("state")[-1]
    assert (state["gpu_load"], state["gpu_hz"], state["emc_load"], state["emc_hz"]) == (39, 305e6, 3, 3199e6)
    assert (state["ram_used"], state["cpu_load"], state["cpu_hz"]) == (2506752 * 1024, 8, 960e6)
    assert {(row["fan"], row["pwm"], row["rpm"]) for row in watched.of("fan")} == {("pwmfan", 35.2, 1301)}
    assert {row["zone"] for row in watched.of("thermal")} == {"cpu"}
    assert [row["name"] for row in watched.of("power_mode")] == ["MAXN"]  # said once, since it never changed
    (fact,) = [fact for fact in watched.rows("run.facts") if fact["name"] == "board"]
    assert json.loads(fact["value"]) == {"hardware": {"Model": "NVIDIA Jetson AGX Orin", "L4T": "36.4.0"}}


@needed
async def test_a_rail_that_two_sensors_tell_is_one_of_the_account(tmp_path):
    """The account is one rail; the other sensor's are beside it."""
    jetson, keep = Jetson(load=Load.parse("constant:20W")), Keep()

    class Until:
        async def collect(self, out):
            while not all(len(keep.rows(key)) >= 20 for key in ("tool.power", "chips.ina3221")):
                await out.flushing()

    async with board(jetson) as place:
        where = Place(reached(place))
        root = place["root"]
        both = {
            "tool": Tegrastats(interval_ms=50.0).on(where),
            "chips": Sampled(Ina3221(root=root, hz=20), where.device, where.boots),
        }
        with create(tmp_path, recipe={}) as folder, trio.fail_after(60):
            devices = {"tool": "orin", "chips": "orin"}
            ending = await engine(
                both, [Journal(folder), keep], {"until": Until()}, devices=devices, flush_every=0.02
            )
            assert ending.error is None
            folder.finish(ending.reason)
    run = pack(folder.path)

    accounts = {rail["sensor_of"] for rail in run.manifest.rails if rail["name"] == "total"}
    assert accounts == {"tool.power", "chips.ina3221"}
    sql = connect(tmp_path)
    totals = sql.execute(
        "SELECT sensor, rail, boundary, sum(joules) / sum(seconds) FROM phases GROUP BY ALL"
    ).fetchall()
    (total,) = [row for row in totals if row[0]]
    assert total[1:3] == ("total", "board")
    assert total[3] == pytest.approx(19.97, rel=0.01)
    told = sql.execute("SELECT count(DISTINCT sensor) FROM phase_rails WHERE rail = 'VDD_GPU_SOC'").fetchone()
    assert told == (2,)


@bash
def test_a_recipe_has_it_run_on_the_device_that_its_entry_names(tmp_path):
    tool = printing(tmp_path, f'while :; do echo "{LINE}"; sleep 0.02; done').tool
    (tmp_path / "recipe.toml").write_text(f"""
seconds = 1.5
[device.orin]
local = "/bin/sh"
[collectors.tegrastats]
device = "orin"
interval_ms = 20.0
tool = {json.dumps(tool)}
[collectors.nvidia_smi]
device = "orin"
interval_ms = 20
tool = {json.dumps([sys.executable, "-c", SHIM])}
""")
    archive = str(tmp_path / "archive")
    assert cli(("run", str(tmp_path / "recipe.toml"), "--archive", archive)) in (0, 3)
    sql = connect(archive)
    power = sql.execute(
        "SELECT DISTINCT device, rail, boundary, round(watts, 2) FROM power ORDER BY ALL"
    ).fetchall()
    assert power == [
        ("orin", "VDD_IN", "board", 4.12),
        ("orin", "gpu0", "board", 70.02),
        ("orin", "gpu0", "board", 72.31),
    ]
    clocks = sql.execute(
        "SELECT DISTINCT clock FROM streams WHERE instance IN ('tegrastats', 'nvidia_smi')"
    ).fetchall()
    assert clocks == [("orin.realtime",)]


@bash
async def test_lines_that_are_none_are_a_gap_and_not_a_row(tmp_path):
    script = f'while :; do echo "{LINE}"; echo junk; echo more junk; sleep 0.02; done'
    async with collecting(printing(tmp_path, script)) as watched:
        await watched.until(lambda: len(watched.gaps("power")) >= 2)
    gap = watched.gaps("power")[0]
    assert gap["lost_rows"] >= 2
    assert "2 lines are none, the first: 'junk'" in gap["reason"]
    assert {row["watts"] for row in watched.of("power")} == {4.12}


@bash
async def test_a_tool_that_ends_or_falls_silent_is_started_again_with_a_gap(tmp_path):
    script = f'echo "{LINE}"; test -e {tmp_path}/once && exit 3; touch {tmp_path}/once; sleep 0.1'
    async with collecting(printing(tmp_path, script)) as watched:
        await watched.until(lambda: len(watched.gaps("power")) >= 2, seconds=30)
    reasons = [gap["reason"] for gap in watched.gaps("power")]
    assert "expected it to go on, got its end" in reasons[0]
    assert "exit status 3" in reasons[1]  # it did say something: it may again
    silent = printing(tmp_path, f'echo "{LINE}"; echo odd; exec sleep 1000')
    silent.patience_s = 0.3
    async with collecting(silent) as watched:
        await watched.until(lambda: watched.gaps("power"), seconds=30)
    assert "within 0.3 s, got 1 lines that are none, the first: 'odd'" in watched.gaps("power")[0]["reason"]


@bash
async def test_a_long_pause_between_lines_is_a_gap(tmp_path):
    script = f'for k in 1 2 3; do echo "{LINE}"; sleep 0.02; done; sleep 0.4; while :; do echo "{LINE}"; sleep 0.02; done'
    async with collecting(printing(tmp_path, script)) as watched:
        await watched.until(lambda: any((gap["lost_rows"] or 0) >= 15 for gap in watched.gaps("power")))
    assert all("no line came for" in gap["reason"] for gap in watched.gaps("power"))


@bash
@pytest.mark.parametrize(
    ("collector", "said"),
    [
        (
            Tegrastats(tool=["no-such-tool"]),
            r"board: expected no-such-tool, got none on PATH .*; try: JetPack's package",
        ),
        (Tegrastats(tool=["false"]), r"board: expected false --interval 1000 to end well, got exit status 1"),
        (
            Jtop(python=[sys.executable]),
            r"board: expected jetson-stats, got .*No module named 'jtop'; try: sudo pip3 install",
        ),
        (Jtop(python=["no-such-python"]), r"board: expected jetson-stats, got .*not found"),
    ],
)
async def test_a_tool_that_is_not_there_is_named_with_its_cure(collector, said):
    with pytest.RaisesGroup(pytest.RaisesExc(DeviceError, match=said), flatten_subgroups=True):
        async with collecting(collector.on(Place(Local("board")))):
            await trio.sleep_forever()


@bash
async def test_rails_of_a_total_that_the_board_does_not_have_are_refused(tmp_path):
    collector = printing(tmp_path, f'while :; do echo "{LINE}"; sleep 0.02; done')
    collector.total = ("GPU",)
    refusal = pytest.RaisesExc(DataError, match=r"Tegrastats.total: expected the rails GPU, got VDD_IN")
    with pytest.RaisesGroup(refusal, flatten_subgroups=True):
        async with collecting(collector):
            await trio.sleep_forever()


def test_an_empty_command_is_refused():
    with pytest.raises(ConfigError, match="tool: expected a program"):
        Tegrastats(tool=[])
    with pytest.raises(ConfigError, match="python: expected an interpreter"):
        Jtop(python=[])


def test_as_root_it_is_asked_not_to_ask_for_a_password():
    assert Tegrastats(sudo=True, interval_ms=100).command() == [
        "sudo",
        "-n",
        "tegrastats",
        "--interval",
        "100",
    ]


def stand_in():
    names = {}
    exec(MODULE, names)  # ours
    with names["jtop"](interval=0.0) as jetson:
        return {
            name: getattr(jetson, name)
            for name in ("power", "temperature", "cpu", "gpu", "memory", "fan", "nvpmodel")
        }


def test_a_total_with_a_name_of_its_own_is_a_rail_and_what_is_off_is_none():
    found = stand_in()
    found["power"] = {
        "rail": {"VDD_CPU_GPU_CV": {"power": 900, "online": True}, "OFF": {"power": 1, "online": False}},
        "tot": {"name": "VDD_IN", "power": 4900, "volt": 5000, "curr": 980},
    }
    told = said(found)
    assert told.watts == {"VDD_CPU_GPU_CV": 0.9, "VDD_IN": 4.9}
    assert told.volts == {"VDD_IN": 5.0}
    assert set(told.cores) == {0, 1}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*"abc", "rail", "tot", "power", "temp", "cpu", "freq", "cur", "RAM", "name"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["power", "temperature", "cpu", "gpu", "memory", "fan", "nvpmodel"]),
        json_values,
        min_size=1,
    )
)
def test_no_record_makes_the_parser_fail(found):
    read = record(json.dumps(found))
    if read is None:
        assert set(found) == {"nvpmodel"}
        return
    told = said(read)
    numbers = [*told.watts.values(), *told.celsius.values(), *told.state.values()]
    assert all(np.isfinite(number) for number in numbers)


@given(st.text(max_size=200), st.integers(0, 3000))
def test_no_line_makes_the_parser_fail(junk, at):
    good = json.dumps(stand_in())
    for text in (junk, good[:at] + junk + good[at:], good[:at]):
        if (found := record(text)) is not None:
            said(found)

"""A recipe says how a device is reached: its sensors of files are read there, all else stays here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from melt_stream import recipe
from melt_stream.analysis.archive import connect
from melt_stream.cli._app import run as cli
from melt_stream.collectors.battery import Battery
from melt_stream.collectors.lines import Lines
from melt_stream.devices import Local, Sampled
from melt_stream.errors import ConfigError
from melt_stream.harness.placed import placed, places
from melt_stream.testing import FakeTree

TREE = {
    "sys/class/power_supply/BAT0/type": "Battery\n", "sys/class/power_supply/BAT0/status": "Discharging\n",
    "sys/class/power_supply/BAT0/voltage_now": "7700000\n", "sys/class/power_supply/BAT0/current_now": "500000\n",
}  # fmt: skip


def plan(**sections):
    return recipe.plan(recipe.parse(sections, "here"), "here")


def placed_of(made):
    return placed(made, places(made.recipe))


def test_sensors_of_files_go_to_their_device_and_meters_stay():
    made = placed_of(plan(
        device={"phone": {"local": "/bin/bash"}},
        collectors={
            "battery": {"device": "phone"}, "own": {"kind": "battery"}, "labelled": {"kind": "battery", "device": "tablet"},
            "meter": {"kind": "lines", "device": "phone", "port": "/dev/null", "columns": {"volts": "V"}},
        },
    )).collectors  # fmt: skip
    assert {name: type(one) for name, one in made.items()} == {
        "battery": Sampled, "own": Battery, "labelled": Battery, "meter": Lines,
    }  # fmt: skip
    assert made["battery"].device == Local("phone", "/bin/bash")
    assert made["battery"].clock.name == "phone.realtime"


def test_sensors_of_one_device_count_its_boots_together():
    made = placed_of(plan(
        device={"phone": {"local": "/bin/sh"}},
        collectors={"battery": {"device": "phone"}, "cpu": {"device": "phone"}},
    )).collectors  # fmt: skip
    assert made["battery"].boots is made["cpu"].boots


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ({"phone": {}}, r"device\.phone: expected one of adb, local, ssh = \.\.\., got none"),
        ({"phone": {"local": "sh", "ssh": "x"}}, r"got local, ssh"),
        ({"phone": {"local": "sh", "shel": "x"}}, r"device\.phone\.shel: expected a key of Local"),
        ({"phone": {"local": 5}}, r"device\.phone\.shell: .*got 5"),
        ({"Phone 1": {"local": "sh"}}, r"expected a device's name .* got 'Phone 1'"),
        ({"host": {"local": "sh"}}, r"other than host, got 'host'"),
    ],
)
def test_what_does_not_say_how_is_refused(device, said):
    with pytest.raises(ConfigError, match=said):
        placed_of(plan(device=device))


@pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
def test_a_run_of_a_recipe_has_the_devices_power_on_the_hosts_time_line(tmp_path):
    tree = FakeTree(tmp_path / "tree", TREE)
    (tmp_path / "recipe.toml").write_text(f"""
seconds = 1.0
[device.board]
local = "/bin/sh"
[device.elsewhere]
local = "/no/shell"
[collectors.battery]
device = "board"
hz = 50.0
root = "{tree.root}"
[conditions]
ambient_c = 23.5
case = "none"
fan = false
[conditions.board]
surface = "wood"
""")
    assert cli(("run", str(tmp_path / "recipe.toml"), "--archive", str(tmp_path / "archive"))) in (0, 3)
    with connect(tmp_path / "archive") as database:
        (row,) = database.execute(
            "SELECT device, avg(watts), count(*), min(t_ns), max(t_ns) FROM power GROUP BY ALL"
        ).fetchall()
        clocks = database.execute(
            "SELECT clock, kind, bound_ns FROM clocks WHERE clock LIKE 'board%'"
        ).fetchall()
        devices = {
            name: said
            for name, *said in database.execute(
                "SELECT device, link, address, cores, memory_bytes > 1e8, loop, error FROM devices"
            ).fetchall()
        }
        conditions = database.execute(
            "SELECT device, name, value, text FROM conditions ORDER BY name"
        ).fetchall()
    assert devices["board"][:2] == ["local", "/bin/sh"]
    assert devices["board"][2:4] == devices["host"][2:4] == [os.cpu_count(), True]
    assert devices["board"][4] in {"shell", "python3"}
    assert devices["elsewhere"][4] is None
    assert devices["elsewhere"][5].startswith("Gone: elsewhere: expected the shell /no/shell")
    assert conditions == [
        (None, "ambient_c", 23.5, "23.5"), (None, "case", None, "none"), (None, "fan", None, "false"),
        ("board", "surface", None, "wood"),
    ]  # fmt: skip
    device, watts, count, first, last = row
    assert (device, watts) == ("board", pytest.approx(3.85))
    assert count >= 10
    assert 0 <= first < last <= 20e9
    assert [(clock, kind) for clock, kind, _ in clocks] == [("board.realtime", "two_way")]
    assert 0 < clocks[0][2] < 1e9


def test_a_thermometer_s_lines_are_a_stream_of_its_names_and_conditions_stand_beside_it(tmp_path):
    text = (Path(__file__).parents[1] / "examples" / "surroundings.toml").read_text()
    printing = """command = ["sh", "-c", "while echo 31.4,23.1; do sleep 0.05; done"]"""
    (tmp_path / "recipe.toml").write_text("seconds = 0.5\n" + text.replace('port = "/dev/ttyACM0"', printing))
    assert (
        cli(("run", str(tmp_path / "recipe.toml"), "--archive", str(tmp_path / "archive"))) == 3
    )  # no power
    with connect(tmp_path / "archive") as database:
        found = database.execute(
            """SELECT v.instance, min(surface), max(ambient), any_value(c.value) FROM "values" v JOIN conditions c USING (run)
            WHERE c.name = 'room_c' GROUP BY ALL"""
        ).fetchall()
    assert found == [("around", 31.4, 23.1, 23.5)]
    (report,) = (tmp_path / "archive").glob("*/report.html")
    assert "room_c" in report.read_text()

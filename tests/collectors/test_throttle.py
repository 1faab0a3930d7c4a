"""Cooling devices and a Jetson's power mode on fake trees."""

from __future__ import annotations

import json

import pytest

from melt_stream.collectors.throttle import MODES, OVERCURRENT, POWER_MODE, STATUS, Throttle, power_modes
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant, spoil

WHOLE = Throttle.example()["tree"]
TREE = {path: text for path, text in WHOLE.items() if "/oc" not in path}
FAN = "sys/class/thermal/cooling_device0"


def test_states_and_the_named_mode(tmp_path):
    assert Throttle(root=plant(tmp_path, TREE)).read() == [
        {"cooling": "pwm-fan", "state": 2, "limit": 4},
        {"cooling": "thermal-cpufreq-0", "state": 0, "limit": 28},
        (POWER_MODE, {"mode": 1, "name": "MODE_15W"}),
    ]
    assert (
        Throttle(root=str(tmp_path)).check().what == "pwm-fan 2 of 4, thermal-cpufreq-0 0 of 28, power mode 1"
    )


def test_events_of_over_current_are_counted_and_a_counter_that_cannot_be_read_is_no_row(tmp_path):
    root = plant(tmp_path, WHOLE)
    told = [row for stream, row in Throttle(root=root).read()[2:-1] if stream is OVERCURRENT]
    assert told == [{"event": f"oc{n}", "count": 7 * n, "throttles": True} for n in (1, 2, 3)]
    assert "oc3 21 times" in Throttle(root=root).check().what
    spoil(root, "sys/class/hwmon/hwmon3/oc1_event_cnt", "sys/class/hwmon/hwmon3/oc2_throt_en")
    left = [row for row in Throttle(root=root).read() if isinstance(row, tuple) and row[0] is OVERCURRENT]
    assert [row["event"] for _, row in left] == ["oc2", "oc3"]
    assert [row["throttles"] for _, row in left] == [None, True]


def test_two_devices_of_a_kind_and_a_mode_without_a_name(tmp_path):
    tree = {
        f"{FAN[:-1]}{n}/{name}": value
        for n in (3, 11)
        for name, value in (("type", "Processor"), ("cur_state", "0"))
    }
    tree |= {STATUS: "pmode:0007"}
    assert Throttle(root=plant(tmp_path, tree)).read() == [
        {"cooling": "Processor@cooling_device11", "state": 0, "limit": None},
        {"cooling": "Processor@cooling_device3", "state": 0, "limit": None},
        (POWER_MODE, {"mode": 7, "name": None}),
    ]


def test_a_mode_alone_will_do(tmp_path):
    root = plant(tmp_path, {STATUS: "pmode:0000", MODES: TREE[MODES]})
    assert Throttle(root=root).read() == [(POWER_MODE, {"mode": 0, "name": "MAXN"})]


@pytest.mark.parametrize("text", ["", "pmode:", "pmode:x", "1 2"])
def test_a_status_that_says_no_mode_is_no_row(tmp_path, text):
    assert len(Throttle(root=plant(tmp_path, TREE | {STATUS: text})).read()) == 2


def test_names_of_modes_are_those_of_whole_lines():
    assert power_modes(
        "# < POWER_MODEL ID=9 NAME=X >\n< POWER_MODEL ID=2 NAME=MODE_30W_2CORE >\n< POWER_MODEL ID="
    ) == {2: "MODE_30W_2CORE"}


async def test_a_mode_that_is_changed_during_the_run_shows_and_a_device_that_fails_costs_itself(
    tmp_path, autojump_clock
):
    root = plant(tmp_path, TREE)
    acts = {
        1.05: lambda: plant(tmp_path, {STATUS: "pmode:0000"}),
        2.05: lambda: spoil(root, f"{FAN}/cur_state"),
    }
    rows = await collect(Throttle(root=root, hz=10), 3, acts)
    assert [row["name"] for row in rows["x.power_mode"]] == ["MODE_15W"] * 11 + ["MAXN"] * 19
    assert [row["cooling"] for row in rows["x.throttle"]].count("pwm-fan") == 21
    assert len(rows["x.throttle"]) == 51
    assert not rows["run.gaps"]
    (fact,) = rows["run.facts"]
    assert json.loads(fact["value"]) == {"0": "MAXN", "1": "MODE_15W"}


def test_nothing_that_can_be_read_is_an_error_that_names_a_file(tmp_path):
    root = plant(tmp_path, {f"{FAN}/cur_state": "2", f"{FAN}/type": "fan"})
    spoil(root, f"{FAN}/cur_state")
    with pytest.raises(DeviceError, match="cur_state"):
        Throttle(root=root).read()
    assert not Throttle(root=root).check().ok

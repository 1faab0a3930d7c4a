"""Fans and INA238 chips on fake trees: how their files are told apart, and what cannot be read."""

from __future__ import annotations

import pytest

from melt_stream.collectors.fan import Fan
from melt_stream.collectors.ina238 import MODEL, Ina238
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant, rails, spoil

HWMON = "sys/class/hwmon"
CHIP = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon4"
TREE = Ina238.example()["tree"]


def fans(tmp_path, tree):
    rows = Fan(root=plant(tmp_path, tree)).read()
    return {row["fan"]: (row["pwm"], row["rpm"]) for row in rows}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (Fan.example()["tree"], {"pwmfan": (100 * 79 / 255, 1301.0)}),
        ({"sys/devices/pwm-fan/cur_pwm": "255", "sys/devices/pwm-fan/rpm_measured": "0"}, {"pwm-fan": (100.0, 0.0)}),
        (
            {f"{HWMON}/hwmon1/name": "nct6775", f"{HWMON}/hwmon1/pwm1": "0", f"{HWMON}/hwmon1/fan1_input": "820",
             f"{HWMON}/hwmon1/fan2_input": "1400"},
            {"nct6775-1": (0.0, 820.0), "nct6775-2": (None, 1400.0)},
        ),
        (  # two tachometers: nobody knows which is the fan's
            {**Fan.example()["tree"], f"{HWMON}/hwmon5/name": "other", f"{HWMON}/hwmon5/rpm": "900"},
            {"pwmfan": (100 * 79 / 255, None), "generic_pwm_tachometer": (None, 1301.0), "other": (None, 900.0)},
        ),
        ({f"{HWMON}/hwmon1/pwm1": "256", f"{HWMON}/hwmon1/fan1_input": "12"}, {"hwmon1": (None, 12.0)}),
    ],
)  # fmt: skip
def test_fans(tmp_path, tree, expected):
    assert fans(tmp_path, tree) == expected
    assert Fan(root=str(tmp_path)).check().ok


def test_no_fan_that_can_be_read_is_an_error_that_names_a_file(tmp_path):
    root = plant(tmp_path, {f"{HWMON}/hwmon1/pwm1": "1"})
    spoil(root, f"{HWMON}/hwmon1/pwm1")
    with pytest.raises(DeviceError, match="pwm1"):
        Fan(root=root).read()
    assert not Fan(root=root).check().ok
    assert "no fan in" in Fan(root=str(tmp_path / "none")).check().what


async def test_a_thors_input_is_the_board_with_the_chips_steps(tmp_path, autojump_clock):
    rows = await collect(Ina238(root=plant(tmp_path, TREE), hz=10), 1)
    assert [
        (row["rail"], row["watts"], row["volts"], row["amps"], row["celsius"]) for row in rows["x.ina238"][:1]
    ] == [("VIN", pytest.approx(41.23), pytest.approx(19.95), pytest.approx(2.066), pytest.approx(41.125))]
    rail = rails(rows)["VIN"]
    assert (rail["boundary"], rail["kind"], rail["parent"]) == ("board", "gauge", None)
    assert rail["gain"] == pytest.approx(0.00583, abs=1e-5)  # of the shunt, nearly all
    assert rail["offset"] == pytest.approx(5e-6 / 3**0.5 / 2e-3 * 19.95)
    assert rail["resolution"] == pytest.approx(0.0503, abs=1e-4)  # 5 uV over 2 mOhm at 20 V


async def test_another_boards_chips_are_rails_by_their_address_and_means_where_they_average(
    tmp_path, autojump_clock
):
    other = CHIP.replace("2-0044", "1-0041").replace("hwmon4", "hwmon7")
    tree = {
        f"{CHIP}/power1_input": "1000000", f"{CHIP}/in1_input": "5000", f"{CHIP}/update_interval": "132",
        f"{other}/power1_input": "2000000", f"{other}/in1_input": "5000", MODEL: "NVIDIA Jetson AGX Thor Developer Kit",
    }  # fmt: skip
    rows = await collect(Ina238(root=plant(tmp_path, tree), hz=10), 1)
    told = rails(rows)
    assert {name: (rail["boundary"], rail["kind"], rail["window_ns"]) for name, rail in told.items()} == {
        "ina238-1-0041": ("rail", "gauge", None), "ina238-2-0044": ("rail", "mean", 132e6),
    }  # fmt: skip
    assert {rail["resolution"] for rail in told.values()} == {None}  # nobody said the shunt
    assert {row["amps"] for row in rows["x.ina238"]} == {None}


async def test_a_chip_that_fails_costs_its_own_row(tmp_path, autojump_clock):
    other = {path.replace("2-0044", "1-0041"): text for path, text in TREE.items() if path != MODEL}
    root = plant(tmp_path, {**TREE, **other})
    fails = {0.55: lambda: spoil(root, f"{CHIP}/power1_input")}
    rows = await collect(Ina238(root=root, hz=10, boundary="dc_in", ohm=0.01), 1, fails)
    names = [row["rail"] for row in rows["x.ina238"]]
    assert (names.count("ina238-1-0041"), names.count("ina238-2-0044")) == (
        len({row["tick"] for row in rows["x.ina238"]}),
        6,
    )
    assert {rail["boundary"] for rail in rails(rows).values()} == {"dc_in"}


def test_no_chip_that_can_be_read_is_an_error(tmp_path):
    root = plant(tmp_path, TREE)
    assert Ina238(root=root).check().what == "VIN 41.23 W"
    spoil(root, f"{CHIP}/power1_input")
    with pytest.raises(DeviceError, match="power1_input"):
        Ina238(root=root).read()
    assert not Ina238(root=root).check().ok

"""INA3221s of Jetsons: both layouts of their files, channels that are none, the board's total, steps, repeats."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from melt_stream.analysis.account import Candidate, choose
from melt_stream.collectors.hwmon import Hwmon
from melt_stream.collectors.ina3221 import Ina3221
from melt_stream.errors import DataError, DeviceError
from melt_stream.sensor import finder
from tests.collectors.host_tree import collect, plant, rails, spoil

RECORDED = Path(__file__).parents[3] / "shared/traces/jetson_sysfs/orin_agx"
CHIP = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
IIO = "sys/bus/i2c/drivers/ina3221x"


def nano(chip=CHIP):
    """An Orin Nano: 5 mOhm, one rail for all."""
    values = {
        1: ("VDD_IN", "5040", "960"),
        2: ("VDD_CPU_GPU_CV", "5032", "240"),
        3: ("VDD_SOC", "5032", "312"),
    }
    tree = {f"{chip}/update_interval": "500", f"{chip}/samples": "512"}
    for n, (label, volts, amps) in values.items():
        tree |= {f"{chip}/in{n}_label": label, f"{chip}/in{n}_input": volts, f"{chip}/curr{n}_input": amps}
        tree |= {
            f"{chip}/shunt{n}_resistor": "5000",
            f"{chip}/in{n + 3}_input": "4800",
            f"{chip}/in{n}_enable": "1",
        }
    return tree | {
        f"{chip}/in7_label": "sum of shunt voltages",
        f"{chip}/in7_input": "9",
        f"{chip}/curr4_input": "9",
    }


def read(root, **config):
    sensor = Ina3221(root=str(root), **config)
    return sensor, {row["rail"]: row for row in sensor.read()}


def fact(rows):
    (told,) = [json.loads(row["value"]) for row in rows["run.facts"] if row["name"] == "ina3221"]
    return told


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded trees are not here")
async def test_the_recorded_agx_orin_has_four_rails_and_their_total(tmp_path, autojump_clock):
    sensor, seen = read(RECORDED)
    assert {name: (row.get("volts"), row.get("amps")) for name, row in seen.items()} == {
        "VDD_GPU_SOC": (19.952, 0.2), "VDD_CPU_CV": (19.944, 0.04), "VIN_SYS_5V0": (5.008, 0.78),
        "VDDQ_VDD2_1V8AO": (5.016, 0.06), "total": (None, None),
    }  # fmt: skip
    watts = 19.952 * 0.2 + 19.944 * 0.04 + 5.008 * 0.78
    assert seen["total"]["watts"] == pytest.approx(watts) == pytest.approx(8.69, abs=0.01)
    assert sensor.check().ok
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    rows = await collect(Ina3221(root=str(tmp_path)), 1)
    assert {r["name"]: (r["boundary"], r["parent"]) for r in rows["run.rails"]} == {
        "total": ("board", None), "VDD_GPU_SOC": ("rail", "total"), "VDD_CPU_CV": ("rail", "total"),
        "VIN_SYS_5V0": ("rail", "total"), "VDDQ_VDD2_1V8AO": ("rail", "VIN_SYS_5V0"),
    }  # fmt: skip
    assert {r["resolution"] for r in rows["run.rails"]} == {None}  # nothing in this tree tells the shunts


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded trees are not here")
def test_a_step_on_agx_orin_is_0_40_watts(tmp_path):
    shutil.copytree(RECORDED, tmp_path, dirs_exist_ok=True)
    sensor, _ = read(plant(tmp_path, {f"{CHIP}/shunt{n}_resistor": "2000" for n in (1, 2, 3)}))
    steps = {rail.name: rail.resolution for _, rail in sensor.rails()}
    assert steps["VDD_GPU_SOC"] == pytest.approx(0.399, abs=0.0005)
    assert steps["VIN_SYS_5V0"] == pytest.approx(math.hypot(0.02 * 5.008, 0.008 * 0.78))
    assert steps["total"] == pytest.approx(math.hypot(0.399, 0.399, 0.1003), abs=0.001)
    assert steps["VDDQ_VDD2_1V8AO"] is None


async def test_an_input_rail_is_the_board_and_the_account_is_exactly_it(tmp_path, autojump_clock):
    rows = await collect(Ina3221(root=plant(tmp_path, nano()), hz=10), 1)
    found = rails(rows)
    assert [name for name, r in found.items() if r["boundary"] == "board"] == ["VDD_IN"]
    assert {r["parent"] for r in found.values()} == {None, "VDD_IN"}
    assert found["VDD_IN"]["resolution"] == pytest.approx(0.0411, abs=0.0005)
    assert found["VDD_IN"]["offset"] == pytest.approx(80e-6 / 0.005 * 5.04 / math.sqrt(3))
    assert {(r["kind"], r["window_ns"]) for r in found.values()} == {("mean", 500e6)}
    assert fact(rows)["board"] == "VDD_IN"
    assert fact(rows)["rails"]["VDD_SOC"] == {
        "chip": "1-0040", "channel": 3, "shunt_ohm": 0.005, "watts_step": found["VDD_SOC"]["resolution"],
        "update_interval_ms": 500.0, "samples": 512,
    }  # fmt: skip


@pytest.mark.parametrize(("hz", "kind"), [(0.5, "gauge"), (1.0, "mean")])
def test_a_window_much_shorter_than_the_step_between_reads_is_none(tmp_path, hz, kind):
    sensor, _ = read(plant(tmp_path, nano()), hz=hz)
    assert {rail.kind for _, rail in sensor.rails()} == {kind}


def test_jetpack_4_counts_from_zero_and_does_not_tell_the_shunt(tmp_path):
    tree = {}
    for chip, folder in (
        ("0-0041", "iio:device1"),
        ("0-0041", "iio_device"),
    ):  # the second is a link to the first
        for n, name in enumerate(("VDD_IN", "VDD_CPU", "NC")):
            base = f"{IIO}/{chip}/{folder}"
            tree |= {
                f"{base}/rail_name_{n}": name, f"{base}/in_voltage{n}_input": "19100",
                f"{base}/in_current{n}_input": f"{100 * (n + 1)}", f"{base}/in_power{n}_input": "1910",
            }  # fmt: skip
    sensor, seen = read(plant(tmp_path, tree), shunts={"VDD_IN": 0.01})
    assert {name: row["watts"] for name, row in seen.items()} == pytest.approx(
        {"VDD_IN": 1.91, "VDD_CPU": 3.82}
    )
    found = {rail.name: rail for _, rail in sensor.rails()}
    assert (found["VDD_IN"].boundary, found["VDD_CPU"].parent) == ("board", "VDD_IN")
    assert found["VDD_IN"].resolution == pytest.approx(0.0764, abs=1e-4)
    assert (found["VDD_CPU"].resolution, found["VDD_IN"].kind) == (None, "gauge")


def test_channels_that_are_none(tmp_path):
    tree = nano() | {
        f"{CHIP}/in1_input": "", f"{CHIP}/in2_enable": "0",
        **nano(CHIP.replace("0040", "0041").replace("hwmon3", "hwmon4")),
    }  # fmt: skip
    root = plant(tmp_path, tree)
    spoil(root, f"{CHIP}/curr3_input")
    sensor, seen = read(root)
    assert set(seen) == {"VDD_IN@1-0041/1", "VDD_CPU_GPU_CV", "VDD_SOC@1-0041/3"}
    assert sensor.facts()["ina3221"]["unread"] == ["VDD_IN@1-0040/1", "VDD_SOC@1-0040/3"]


async def test_a_part_that_fails_costs_its_row_and_the_totals(tmp_path, autojump_clock):
    tree = Ina3221.example()["tree"]
    root = plant(tmp_path, tree)
    volts = f"{CHIP}/in2_input"
    acts = {1.05: lambda: spoil(root, volts), 2.05: lambda: plant(tmp_path, {volts: tree[volts]})}
    rows = (await collect(Ina3221(root=root, jitter=False), 3, acts))["x.ina3221"]
    of = {
        n: [r["tick"] / 1e9 for r in rows if r["rail"] == n] for n in ("total", "VDD_CPU_CV", "VDD_GPU_SOC")
    }
    assert len(of["VDD_GPU_SOC"]) == 30
    assert of["total"] == of["VDD_CPU_CV"]
    assert not [t for t in of["total"] if 1.05 < t < 2.05]
    assert len(of["total"]) == 20


async def test_a_part_that_comes_later_brings_the_total(tmp_path, autojump_clock):
    tree = Ina3221.example()["tree"]
    root, volts = plant(tmp_path, tree), f"{CHIP}/in2_input"
    spoil(root, volts)
    rows = await collect(Ina3221(root=root), 2, {1.05: lambda: plant(tmp_path, {volts: tree[volts]})})
    assert min(r["tick"] for r in rows["x.ina3221"] if r["rail"] == "total") > 1e9
    assert rails(rows)["VDD_GPU_SOC"]["parent"] == "total"
    assert rails(rows)["total"]["boundary"] == "board"


def test_the_total_is_what_is_said(tmp_path):
    root = plant(tmp_path, Ina3221.example()["tree"])
    _, seen = read(root, total=("VDD_GPU_SOC", "VDD_CPU_CV"))
    assert seen["total"]["watts"] == pytest.approx(19.952 * 0.2 + 19.944 * 0.04)
    assert "total" not in read(root, total=())[1]
    with pytest.raises(DataError, match="expected the rails VDD_X, got VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0"):
        read(root, total=("VDD_X",))


def test_repeats_are_counted_by_rail(tmp_path):
    root = plant(tmp_path, nano())
    sensor = Ina3221(root=root)

    def repeats():
        return [row["repeats"] for row in sensor.read()]

    assert repeats() == [0, 0, 0]
    assert repeats() == [1, 1, 1]
    plant(tmp_path, {f"{CHIP}/curr2_input": "248"})
    assert repeats() == [2, 0, 2]
    assert repeats() == [3, 1, 3]


def test_voltage_and_current_of_a_channel_are_read_one_after_the_other(tmp_path):
    root = plant(tmp_path, nano())
    keys = [key for key in Ina3221(root=root).files(finder(root)) if key.endswith("_input")]
    assert [key.partition("/")[2] for key in keys] == [
        "in1_input", "curr1_input", "in2_input", "curr2_input", "in3_input", "curr3_input",
    ]  # fmt: skip


def test_nothing_that_can_be_read_is_an_error_that_names_a_file(tmp_path):
    root = plant(tmp_path, nano())
    spoil(root, *(f"{CHIP}/curr{n}_input" for n in (1, 2, 3)))
    with pytest.raises(
        DeviceError, match=r"expected a rail with voltage and current, got none; .*curr1_input"
    ):
        read(root)
    assert Ina3221(root=root).check().what == "no channel of an INA3221 can be read"


async def test_the_account_is_the_total_also_beside_hwmon_which_shows_the_same_chips(
    tmp_path, autojump_clock
):
    tree = Ina3221.example()["tree"]
    flat = {f"sys/class/hwmon/hwmon3/{path.rpartition('/')[2]}": text for path, text in tree.items()}
    root = plant(tmp_path, tree | flat | {"sys/class/hwmon/hwmon3/name": "ina3221"})
    found = [
        Candidate(
            r["sensor_of"],
            r["name"],
            r["boundary"],
            r["kind"],
            r["instrument"],
            estimated=False,
            coverage=1.0,
        )
        for sensor in (Ina3221(root=root), Hwmon(root=root))
        for r in (await collect(sensor, 1))["run.rails"]
    ]
    assert len(found) == 7
    assert choose("orin", found, {}).label == "x.ina3221/total"

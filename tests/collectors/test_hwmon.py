import pytest

from melt_stream.collectors.hwmon import Hwmon
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant, rails, spoil

HWMON = "sys/class/hwmon"


def chips(*files, below=""):
    """One folder for each dict of files; the first is hwmon0."""
    return {
        f"{HWMON}/hwmon{i}/{below}{name}": text for i, chip in enumerate(files) for name, text in chip.items()
    }


def read(tmp_path, *files, **config):
    rows = Hwmon(root=plant(tmp_path, chips(*files)), **config).read()
    return {(stream.name, row.pop("rail")): row for stream, row in rows}


def test_power_energy_and_pairs_in_si_units(tmp_path):
    rows = Hwmon(root=plant(tmp_path, Hwmon.example()["tree"])).read()
    assert [(stream.name, *row.values()) for stream, row in rows] == [
        ("power", "ina226-power1", pytest.approx(9.775)),
        ("supply", "ina3221-VDD_IN", pytest.approx(5.04), pytest.approx(1.2)),
        ("average", "power_meter-power1", pytest.approx(98.0)),
        ("hwmon_energy", "amd_energy-Esocket0", 1_843_000_000),
    ]


async def test_rails_say_kind_window_and_boundary(tmp_path, autojump_clock):
    tree, config = Hwmon.example()["tree"], Hwmon.example()["config"]
    rows = await collect(Hwmon(root=plant(tmp_path, tree), **config), 0.3)
    assert {n: (r["kind"], r["window_ns"], r["boundary"]) for n, r in rails(rows).items()} == {
        "ina226-power1": ("gauge", None, "dc_in"),  # as configured
        "ina3221-VDD_IN": ("gauge", None, "rail"),
        "power_meter-power1": ("mean", 1e9, "board"),
        "amd_energy-Esocket0": ("counter", None, "package"),
    }
    assert {type(row["energy"]) for row in rows["x.hwmon_energy"]} == {int}
    assert {r["sensor_of"] for r in rows["run.rails"]} == {
        "x.power",
        "x.supply",
        "x.average",
        "x.hwmon_energy",
    }


def test_a_pair_that_has_its_power_already_is_not_measured_twice(tmp_path):
    ina = {
        "name": "ina226",
        "in0_input": "3",
        "in1_input": "12000",
        "curr1_input": "800",
        "power1_input": "9600000",
    }
    assert list(read(tmp_path, ina)) == [("power", "ina226-power1")]


def test_the_ina238_of_a_thor_is_one_rail_and_the_board_where_that_is_said(tmp_path):
    ina = {
        "name": "ina238", "in0_input": "2", "in1_input": "19552", "in1_label": "VIN", "curr1_input": "1240", "power1_input": "24246000",
        "temp1_input": "44000",
    }  # fmt: skip
    root = plant(tmp_path, chips(ina))
    sensor = Hwmon(root=root, boundary={"ina238": "board"})
    assert list(sensor.read()) == [(Hwmon.stream, {"rail": "ina238-power1", "watts": pytest.approx(24.246)})]
    assert [rail.boundary for _, rail in sensor.rails()] == ["board"]
    spoil(root, f"{HWMON}/hwmon0/power1_input")
    with pytest.raises(DeviceError, match="power1_input"):  # its power failed: the pair is no stand-in
        Hwmon(root=root).read()


def test_pmbus_pairs_go_by_label_not_by_number(tmp_path):
    psu = {
        "name": "dps650ab", "in1_label": "vin", "in1_input": "230000", "in2_label": "vout1", "in2_input": "12000",
        "curr1_label": "iin", "curr1_input": "500", "curr2_label": "iout1", "curr2_input": "8000",
        "power1_label": "pin", "power1_input": "115000000",
    }  # fmt: skip
    assert read(tmp_path, psu) == {
        ("power", "dps650ab-pin"): {"watts": pytest.approx(115.0)},
        ("supply", "dps650ab-vout1"): {"volts": pytest.approx(12.0), "amps": pytest.approx(8.0)},
    }


def test_the_ina3221_sum_channel_is_no_rail(tmp_path):
    ina = {
        "name": "ina3221",
        "in1_input": "5000",
        "curr1_input": "100",
        "in4_input": "8",
        "curr4_input": "300",
    }
    assert list(read(tmp_path, ina)) == [("supply", "ina3221-supply1")]


def test_an_average_without_its_interval_has_an_unknown_window(tmp_path):
    sensor = Hwmon(
        root=plant(tmp_path, chips({"name": "amdgpu", "power1_average": "31000000", "power1_label": "PPT"}))
    )
    sensor.read()
    ((stream, rail),) = sensor.rails()
    assert (stream.name, rail.name, rail.boundary, rail.window_ns) == (
        "average",
        "amdgpu-PPT",
        "package",
        None,
    )


def test_two_chips_of_a_kind_are_told_apart(tmp_path):
    ina = {"name": "ina226", "power1_input": "1000000"}
    assert {rail for _, rail in read(tmp_path, ina, ina)} == {"ina226@hwmon0-power1", "ina226@hwmon1-power1"}


def test_old_drivers_keep_their_files_one_level_down(tmp_path):
    root = plant(tmp_path, chips({"name": "ina219", "power1_input": "2000000"}, below="device/"))
    assert [row for _, row in Hwmon(root=root).read()] == [
        {"rail": "ina219-power1", "watts": pytest.approx(2.0)}
    ]


def test_batteries_and_mainboard_voltages_are_left_out(tmp_path):
    battery = {"name": "BAT0", "power1_input": "7000000", "device/capacity": "80"}
    board = {"name": "nct6775", "in0_input": "1000", "in1_input": "1100"}
    root = plant(tmp_path, chips(battery, board))
    assert Hwmon(root=root).check().what == f"no chip that measures power in {tmp_path}/{HWMON}"
    with pytest.raises(DeviceError, match="no chip that measures power"):
        Hwmon(root=root).read()


def test_a_current_without_its_voltage_is_no_power(tmp_path):
    root = plant(tmp_path, chips({"name": "lm", "curr1_input": "100", "in2_input": "5000"}))
    with pytest.raises(DeviceError, match=r"expected a power reading from \['hwmon0'\], got none"):
        Hwmon(root=root).read()
    assert not Hwmon(root=root).check().ok


async def test_a_channel_that_fails_costs_only_itself(tmp_path, autojump_clock):
    tree = chips({"name": "a", "power1_input": "1000000"}, {"name": "b", "power1_input": "2000000"})
    root = plant(tmp_path, tree)
    first = f"{HWMON}/hwmon0/power1_input"
    rows = await collect(Hwmon(root=root), 2, {1.05: lambda: spoil(root, first)})
    assert len([r for r in rows["x.power"] if r["rail"] == "b-power1"]) == 20
    assert len([r for r in rows["x.power"] if r["rail"] == "a-power1"]) == 11
    assert not rows["run.gaps"]


async def test_a_chip_that_goes_and_comes_back_under_another_number(tmp_path, autojump_clock):
    root = plant(tmp_path, chips({"name": "a", "power1_input": "1000000"}))
    later = {f"{HWMON}/hwmon5/name": "a", f"{HWMON}/hwmon5/power1_input": "3000000"}
    gone = tmp_path / HWMON / "hwmon0/power1_input"
    rows = await collect(Hwmon(root=root), 3, {1.05: gone.unlink, 2.05: lambda: plant(tmp_path, later)})
    assert {(r["rail"], r["watts"]) for r in rows["x.power"]} == {("a-power1", 1.0), ("a-power1", 3.0)}
    assert len(rows["run.gaps"]) == 1


async def test_a_channel_that_cannot_be_read_is_no_rail(tmp_path, autojump_clock):
    tree = chips({"name": "a", "power1_input": "1000000", "power2_input": "0"})
    root = plant(tmp_path, tree)
    spoil(root, f"{HWMON}/hwmon0/power1_input")
    rows = await collect(Hwmon(root=root), 0.5)
    assert list(rails(rows)) == ["a-power2"]


async def test_a_card_that_slept_at_first_is_a_rail_when_it_wakes(tmp_path, autojump_clock):
    root = plant(
        tmp_path, chips({"name": "amdgpu", "power1_average": "5000000"}, {"name": "b", "power1_input": "0"})
    )
    asleep = f"{HWMON}/hwmon0/power1_average"
    spoil(root, asleep)
    rows = await collect(Hwmon(root=root), 2, {1.05: lambda: plant(tmp_path, {asleep: "5000000"})})
    declared = {rail["name"]: rail["tick"] for rail in rows["run.rails"]}
    assert declared["b-power1"] == 0
    assert declared["amdgpu-power1"] == pytest.approx(1.1e9, abs=0.11e9)
    assert len(rows["run.rails"]) == 2
    assert min(row["tick"] for row in rows["x.average"]) >= declared["amdgpu-power1"]

import json

import pytest

from melt_stream.collectors.battery import Battery
from melt_stream.errors import DeviceError, Transient
from tests.collectors.host_tree import collect, plant, rails, spoil

SUPPLIES = "sys/class/power_supply"


def supply(name="BAT0", **files):
    files = {"type": "Battery", "status": "Discharging", **files}
    return {f"{SUPPLIES}/{name}/{key}": value for key, value in files.items()}


def read(tmp_path, *supplies, **config):
    tree = {path: text for files in supplies for path, text in files.items()}
    return {row["rail"]: row for _, row in Battery(root=plant(tmp_path, tree), **config).read()}


def test_volts_and_amps_where_the_gauge_has_a_current(tmp_path):
    row = read(tmp_path, supply(voltage_now="11400000", current_now="804000", capacity="81"))["BAT0"]
    assert row == {
        "rail": "BAT0", "status": "Discharging", "plugged": False, "volts": pytest.approx(11.4),
        "amps": pytest.approx(0.804), "capacity": 81.0, "reported": 804000,
    }  # fmt: skip


def test_watts_where_it_has_a_power(tmp_path):
    row = read(tmp_path, supply(voltage_now="11400000", power_now="9166000"))["BAT0"]
    assert (row["watts"], row["voltage"], row["reported"]) == (
        pytest.approx(9.166),
        pytest.approx(11.4),
        9166000,
    )


async def test_each_kind_of_gauge_has_its_stream(tmp_path, autojump_clock):
    root = plant(tmp_path, supply(voltage_now="11400000", power_now="9166000"))
    plant(tmp_path, supply("BAT1", voltage_now="11400000", current_now="804000"))
    rows = await collect(Battery(root=root), 2)
    assert {rail["name"]: rail["sensor_of"] for rail in rows["run.rails"]} == {
        "BAT0": "x.battery_power",
        "BAT1": "x.battery",
    }
    assert {row["rail"] for row in rows["x.battery_power"]} == {"BAT0"}
    assert {row["rail"] for row in rows["x.battery"]} == {"BAT1"}


@pytest.mark.parametrize(
    ("current", "amps"),
    [
        ("804000", 0.804),  # the kernel's rule: uA, positive
        ("-804000", 0.804),  # Pixel 5: negative
        ("804", 0.804),  # Samsung: mA
        ("-512", 0.512),  # Huawei: mA, negative
        ("60000", 0.06),  # a phone that hardly does anything: 0.2 W, still uA
    ],
)
def test_sign_and_unit_are_told_by_what_a_machine_can_draw(tmp_path, current, amps):
    row = read(tmp_path, supply(voltage_now="3850000", current_now=current))["BAT0"]
    assert row["amps"] == pytest.approx(amps)
    assert row["reported"] == int(current)


def test_a_configured_unit_is_believed(tmp_path):
    low = supply(voltage_now="3850000", current_now="804")
    assert read(tmp_path, low, unit="micro")["BAT0"]["amps"] == pytest.approx(804e-6)
    assert read(tmp_path, low, unit="milli")["BAT0"]["amps"] == pytest.approx(0.804)


def test_millivolts_are_told_by_size(tmp_path):
    assert read(tmp_path, supply(voltage_now="3850", current_now="500000"))["BAT0"]["volts"] == pytest.approx(
        3.85
    )


def test_the_unit_is_decided_once(tmp_path):
    battery = Battery(root=plant(tmp_path, supply(voltage_now="4000000", current_now="500000")))
    list(battery.read())
    plant(tmp_path, supply(voltage_now="4000000", current_now="9000"))
    assert battery.read()[0][1]["amps"] == pytest.approx(0.009)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_what_does_not_discharge_measures_nothing_of_the_load(tmp_path, status):
    row = read(tmp_path, supply(status=status, voltage_now="11400000", current_now="804000"))["BAT0"]
    assert row["amps"] is None
    assert (row["status"], row["reported"], row["volts"]) == (status, 804000, pytest.approx(11.4))


def test_a_plugged_charger_means_the_same_unless_it_is_known_to_lie(tmp_path):
    both = supply(voltage_now="4000000", current_now="500000"), supply("usb", type="USB", online="1")
    row = read(tmp_path, *both)["BAT0"]
    assert (row["plugged"], row["amps"]) == (True, None)
    assert read(tmp_path, *both, ignore_plugged=True)["BAT0"]["amps"] == pytest.approx(0.5)


def test_a_gauge_stuck_at_zero_measures_nothing(tmp_path):
    row = read(tmp_path, supply(voltage_now="4000000", current_now="0"))["BAT0"]
    assert (row["reported"], row["amps"]) == (0, None)


def test_a_mouses_battery_is_not_the_machines(tmp_path):
    mouse = supply("hid", scope="Device", voltage_now="3900000", current_now="10000")
    laptop = supply(voltage_now="11400000", power_now="9166000")
    assert list(
        read(tmp_path, mouse, laptop, supply("BAT1", voltage_now="11000000", power_now="5000000"))
    ) == ["BAT0", "BAT1"]
    with pytest.raises(DeviceError, match="expected a supply of type Battery"):
        read(tmp_path / "other", mouse)


async def test_rail_and_how_the_unit_was_decided_are_recorded(tmp_path, autojump_clock):
    root = plant(tmp_path, supply(voltage_now="3850000", current_now="-804"))
    rows = await collect(Battery(root=root), 1)
    assert (rails(rows)["BAT0"]["boundary"], rails(rows)["BAT0"]["kind"]) == ("battery", "gauge")
    (fact,) = rows["run.facts"]
    assert json.loads(fact["value"])["BAT0"] == {
        "unit": "milli", "decided": "by size of the first discharging reading", "reads": "current_now",
        "first": -804, "sign": "negative while discharging",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "current", "said"),
    [
        ("Discharging", "804000", "positive while discharging"),
        ("Discharging", "0", "0 while discharging: stuck, or not begun"),
        ("Charging", "804000", "not known before it discharges"),
    ],
)
async def test_what_the_gauges_sign_means_is_recorded(tmp_path, autojump_clock, status, current, said):
    root = plant(tmp_path, supply(status=status, voltage_now="3850000", current_now=current))
    (fact,) = (await collect(Battery(root=root), 1))["run.facts"]
    assert json.loads(fact["value"])["BAT0"]["sign"] == said


def test_doctor_tells_a_gauge_stuck_at_zero_from_a_charging_one(tmp_path):
    health = Battery(root=plant(tmp_path, supply(voltage_now="3850000", current_now="0"))).check()
    assert (health.ok, health.what) == (False, "BAT0 Discharging: the gauge is stuck at 0")


async def test_unplugging_starts_measuring_and_an_unreadable_gauge_is_a_gap(tmp_path, autojump_clock):
    charging = supply(status="Charging", voltage_now="12000000", current_now="2000000")
    root = plant(tmp_path, charging)
    gauge = f"{SUPPLIES}/BAT0/current_now"
    rows = await collect(
        Battery(hz=10, jitter=False, root=root),
        4,
        {
            1.05: lambda: plant(tmp_path, supply(current_now="1000000")),
            2.05: lambda: spoil(root, gauge),
            3.05: lambda: plant(tmp_path, {gauge: "1000000"}),
        },
    )
    amps = [(row["tick"] / 1e9, row["amps"]) for row in rows["x.battery"]]
    assert {a for t, a in amps if t <= 1.05} == {None}
    assert {a for t, a in amps if t > 1.05} == {1.0}
    (gap,) = rows["run.gaps"]
    assert gap["lost_rows"] == pytest.approx(10, abs=1)


def test_doctor_tells_a_desktop_a_charging_laptop_and_an_unreadable_gauge(tmp_path):
    assert "mains" in Battery(root=str(tmp_path)).check().cure
    root = plant(tmp_path, supply(status="Charging", voltage_now="12000000", current_now="2000000"))
    assert "unplug" in Battery(root=root).check().cure
    plant(tmp_path, {f"{SUPPLIES}/BAT0/status": "Discharging"})
    assert Battery(root=root).check().ok
    spoil(root, f"{SUPPLIES}/BAT0/current_now")
    assert "no battery with a readable gauge" in Battery(root=root).check().what
    with pytest.raises(Transient, match="current_now"):
        Battery(root=root).read()

import pytest

from melt_stream.collectors.thermal import Thermal, scale_of
from tests.collectors.host_tree import collect, plant, spoil

BASE = "sys/class/thermal/thermal_zone"


def zones(**temps):
    """``cpu0="45000"``: zone 0, of type cpu."""
    tree = {}
    for name, temp in temps.items():
        tree |= {f"{BASE}{name[-1]}/type": name[:-1], f"{BASE}{name[-1]}/temp": temp}
    return tree


def read(sensor):
    return {row["zone"]: row["celsius"] for row in sensor.read()}


def test_zones_by_type_and_number_where_a_type_repeats(tmp_path):
    root = plant(tmp_path, zones(acpitz0="27800", cpu1="54000", acpitz2="16800"))
    assert read(Thermal(root=root)) == {
        "acpitz@thermal_zone0": pytest.approx(27.8),
        "cpu": pytest.approx(54.0),
        "acpitz@thermal_zone2": pytest.approx(16.8),
    }


@pytest.mark.parametrize("value", ["-256000", "-274000", "-273150", "255000", "", "N/A"])
def test_what_no_sensor_can_mean_is_unknown(tmp_path, value):
    assert read(Thermal(root=plant(tmp_path, zones(wifi0=value)))) == {"wifi": None}


@pytest.mark.parametrize(
    ("value", "celsius"),
    [("45", 45.0), ("450", 45.0), ("45000", 45.0), ("-5", -5.0), ("-5000", -5.0), ("1600", 1.6)],
)
def test_degrees_tenths_and_thousandths_are_told_apart(tmp_path, value, celsius):
    assert read(Thermal(root=plant(tmp_path, zones(cpu0=value))))["cpu"] == pytest.approx(celsius)
    assert float(value) * scale_of(float(value)) == pytest.approx(celsius)


def test_the_unit_is_decided_once_for_each_zone(tmp_path):
    sensor = Thermal(root=plant(tmp_path, zones(cpu0="30000", skin1="31")))
    read(sensor)
    plant(tmp_path, zones(cpu0="900", skin1="160"))
    assert read(sensor) == {"cpu": pytest.approx(0.9), "skin": pytest.approx(160.0)}


def test_zero_is_unknown_until_a_zone_has_shown_that_it_measures(tmp_path):
    sensor = Thermal(root=plant(tmp_path, zones(cpu0="0")))
    assert read(sensor) == {"cpu": None}
    plant(tmp_path, zones(cpu0="1500"))
    sensor.unit = "mCel"
    assert read(sensor) == {"cpu": pytest.approx(1.5)}
    plant(tmp_path, zones(cpu0="0"))
    assert read(sensor) == {"cpu": 0.0}


def test_one_unreadable_zone_costs_only_itself(tmp_path):
    root = plant(tmp_path, zones(cpu0="50000", modem1="40000"))
    spoil(root, f"{BASE}1/temp")
    assert read(Thermal(root=root)) == {"cpu": pytest.approx(50.0), "modem": None}


async def test_all_zones_vanish_and_other_ones_come(tmp_path, autojump_clock):
    root = plant(tmp_path, zones(cpu0="50000"))

    def swap():
        (tmp_path / f"{BASE}0/temp").unlink()

    rows = await collect(
        Thermal(root=root), 3, {1.05: swap, 2.05: lambda: plant(tmp_path, zones(gpu4="60000"))}
    )
    assert {row["zone"] for row in rows["x.thermal"]} == {"cpu", "gpu"}
    assert len(rows["run.gaps"]) == 1


def test_doctor_says_that_there_are_none(tmp_path):
    health = Thermal(root=str(tmp_path)).check()
    assert not health.ok
    assert health.what == f"no thermal zone in {tmp_path}/sys/class/thermal"
    assert "virtual machine" in health.cure

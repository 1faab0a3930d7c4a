"""What Android's services print: the HAL's temperatures, the battery's charge, other makers' units, and no harm by any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._dumpsys import Temperature, battery, charge_scale, thermal
from melt_stream.collectors.dumpsys_battery import DumpsysBattery
from melt_stream.collectors.dumpsys_thermal import DumpsysThermal
from melt_stream.errors import DeviceError
from tests.collectors.collecting import collecting

THERMAL = """IsStatusOverride: false
ThermalEventListeners:
	callbacks: 2
	killed: false
Thermal Status: 2
Cached temperatures:
	Temperature{mValue=99.0, mType=0, mName=BIG, mStatus=3}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=62.500004, mType=0, mName=BIG, mStatus=2}
	Temperature{mValue=-5.7E-1, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
	Temperature{mValue=4200.0, mType=6, mName=vbat, mStatus=0}
	Temperature{mValue=NaN, mType=2, mName=battery, mStatus=0}
	Temperature{mValue=31.0, mType=42, mName=new one, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=88, mType=2, mName=thermal-cpufreq-0}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  Charge counter: 3270000
  status: 3
  health: 2
  present: true
  level: 42
  scale: 50
  voltage: 4052
  temperature: 274
  technology: Li-ion
  Capacity level: -1
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, voltage:4120, temperature:345
  level: 1
"""


def test_the_hals_temperatures_now_and_not_what_was_cached():
    said = thermal(THERMAL)
    assert (said.status, said.cached) == (2, False)
    assert said.temperatures == [
        Temperature("BIG", "cpu", 62.500004, 2),
        Temperature("VIRTUAL-SKIN", "skin", -0.57, 0),
        Temperature("battery", "battery", None, 0),
        Temperature("new one", "type_42", 31.0, 0),
    ]


def test_without_a_hal_what_was_cached_counts_and_is_called_so():
    said = thermal(
        "Thermal Status: 0\nCached temperatures:\n\tTemperature{mValue=33.0, mType=3, mName=skin, mStatus=0}\n"
    )
    assert (said.cached, [one.celsius for one in said.temperatures]) == (True, [33.0])
    assert thermal("Can't find service: thermalservice") is None


def test_the_battery_service():
    said = battery(BATTERY)
    assert said.status == "Discharging"
    assert said.plugged is True
    assert (said.volts, said.percent, said.celsius, said.charge) == (
        pytest.approx(4.052),
        84.0,
        27.4,
        3_270_000,
    )
    assert battery("nothing of it") is None


@pytest.mark.parametrize(("told", "volts"), [("4052", 4.052), ("4052000", 4.052), ("4", 4.0)])
def test_a_voltage_in_any_unit(told, volts):
    assert battery(BATTERY.replace("4052", told)).volts == pytest.approx(volts)


@pytest.mark.parametrize(
    ("charge", "percent", "scale"),
    [(3_270_000, 83.0, 1e-3), (3270, 83.0, 1.0), (33_000, 1.0, 1e-3), (33, 1.0, 1.0), (220_000, 15.0, 1e-3), (5, None, 1e-3)],
)  # fmt: skip
def test_a_charge_counts_microamp_hours_unless_a_full_battery_would_hold_next_to_nothing(
    charge, percent, scale
):
    assert charge_scale(charge, percent) == scale


@given(st.text(max_size=300))
def test_no_text_does_harm(text):
    for whole in (text, THERMAL.replace("62.500004", text), BATTERY.replace("4052", text)):
        thermal(whole)
        battery(whole)


def printing(text):
    return ("printf", "%s# %s", text)


async def test_a_charge_counts_while_the_battery_discharges_unplugged():
    async with collecting(DumpsysBattery(command=printing(BATTERY))) as keep:
        await keep.until(lambda: keep.of("battery_service"))
    row = keep.of("battery_service")[0]
    assert (row["charge"], row["reported"], row["plugged"]) == (None, 3_270_000, True)
    async with collecting(
        DumpsysBattery(command=printing(BATTERY.replace("USB powered: true", "USB powered: false")))
    ) as keep:
        await keep.until(lambda: keep.of("battery_service"))
    assert keep.of("battery_service")[0]["charge"] == 3270.0
    assert keep.rows("run.rails") == []  # unless asked for, since as a counter it would be the account


async def test_the_charge_is_a_rail_where_that_is_asked_for():
    async with collecting(DumpsysBattery(command=printing(BATTERY), energy=True)) as keep:
        await keep.until(lambda: keep.of("battery_service"))
    assert [(rail["kind"], rail["boundary"]) for rail in keep.rows("run.rails")] == [("counter", "battery")]


async def test_throttling_is_a_stream_of_its_own():
    async with collecting(DumpsysThermal(command=printing(THERMAL))) as keep:
        await keep.until(lambda: keep.of("throttling"))
    assert {(row["level"], row["name"]) for row in keep.of("throttling")} == {(2, "moderate")}
    assert {(row["zone"], row["part"], row["throttles"]) for row in keep.of("thermal")} >= {("BIG", "cpu", 2)}


async def test_where_there_is_no_such_service_it_says_so():
    with pytest.raises(BaseExceptionGroup) as caught:
        async with collecting(DumpsysThermal(command=("printf", "Can't find service: %s"))) as keep:
            await keep.until(lambda: False)
    assert caught.group_contains(
        DeviceError, match=r"expected what dumpsys prints on Android 10 or later, got \"Can't find service"
    )

"""A phone's state is set for a run and put back whatever happens: over real adb, on an emulated phone's real shell."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager

import pytest
import trio

from melt_stream.collectors._android_steps import Phone
from melt_stream.collectors.phone_state import PhoneState
from melt_stream.devices import Local, Place, run
from melt_stream.devices.adb import Adb
from melt_stream.errors import ConfigError
from melt_stream.plugins import configure
from tests.collectors.holding import Recorder, held, stages
from tests.emulators.playing_android import ADBS, playing, serving

STATE = "/data/system/state"
ALL = {
    "screen": "on", "brightness": 50, "stay_on": True, "airplane": True, "wifi": False, "bluetooth": False,
    "location": False, "do_not_disturb": True, "pretend_unplugged": True, "settings": {"global/low_power": "0"},
    "files": {"/sys/class/power_supply/battery/input_suspend": "1"},
}  # fmt: skip
CHANGED = {
    "global/airplane_mode_on": "1", "global/bluetooth_on": "0", "global/low_power": "0", "global/wifi_on": "0",
    "global/stay_on_while_plugged_in": "7", "global/zen_mode": "2", "secure/location_mode": "0", "wakefulness": "Awake",
    "system/screen_brightness": "50", "system/screen_brightness_mode": "0", "system/screen_off_timeout": "86400000",
    "unplugged": "", "input_suspend": "1",
}  # fmt: skip


@asynccontextmanager
async def plugged_in(whose=ADBS[0]):
    """An emulated phone, the device that reaches it over a real server, and what is set on it."""
    with serving(whose) as adb:
        async with playing() as (phone, place):
            phone.phone.write({"sys/class/power_supply/battery/input_suspend": "0\n"})

            def state():
                folder = phone.phone.tree / STATE.lstrip("/")
                files = [
                    *folder.rglob("*"),
                    phone.phone.tree / "sys/class/power_supply/battery/input_suspend",
                ]
                known = {
                    str(file.relative_to(folder)) if folder in file.parents else file.name: file
                    for file in files
                }
                return {name: file.read_text().strip() for name, file in known.items() if file.is_file()}

            device = Adb("pixel8", str(place["serial"]), port=adb.port)
            await run(device, ["true"])  # connected
            yield phone, device, state


def there(device, **config):
    return configure(PhoneState, {"patience_s": 15.0, **config}, "here").on(Place(device))


@pytest.mark.parametrize("whose", ADBS)
async def test_all_is_set_and_put_back(whose):
    async with plugged_in(whose) as (_, device, state):
        before, during = state(), {}
        ending, keep = await held(there(device, **ALL), lambda: during.update(state()))
        assert ending.error is None
        assert during == before | CHANGED
        assert state() == before
        told = {stage: len(names) for stage, names in stages(keep).items()}
        assert told == dict.fromkeys(("before", "during", "end", "after"), 13)
        assert stages(keep, "global/low_power") == {
            "before": ["null"], "during": ["0"], "end": ["0"], "after": ["null"],
        }  # fmt: skip
        assert stages(keep, "screen") == {
            "before": ["off"],
            "during": ["on"],
            "end": ["on"],
            "after": ["off"],
        }


async def test_what_is_not_asked_for_is_left_alone_and_what_is_so_already_too():
    async with plugged_in() as (_, device, state):
        before, during = state(), {}
        ending, keep = await held(there(device, wifi=True, screen="off"), lambda: during.update(state()))
        assert ending.error is None
        assert before == during == state()
        assert set(stages(keep)) == {"before", "during", "after"}


async def test_a_link_that_drops_at_the_end_is_waited_for():
    async with plugged_in() as (phone, device, state):
        before = state()
        ending, keep = await held(there(device, brightness=7, screen="on"), lambda: phone.unplug(1.0))
        assert ending.error is None
        assert state() == before
        assert stages(keep, "system/screen_brightness")["after"] == ["102"]


async def test_a_link_that_does_not_come_back_is_an_error_with_what_to_run_by_hand(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._condition.END_S", 0.1)
    async with plugged_in() as (phone, device, state):
        condition = there(device, brightness=7, patience_s=1.0)
        ending, _ = await held(condition, lambda: phone.unplug(60.0))
        assert ending.reason == "workloads ended"
        assert state()["system/screen_brightness"] == "7"
        said = str(ending.error)
        assert "expected to put back system/screen_brightness as it was (102)" in said
        by_hand = f"run by hand: adb -P {device.port} -s {device.serial} shell "
        assert f"{by_hand}'settings put system screen_brightness 102'" in said
        assert f"{by_hand}'settings put system screen_brightness_mode 1'" in said


async def test_nothing_is_set_where_one_state_cannot_be_read():
    async with plugged_in() as (phone, device, state):
        (phone.phone.tree / f"{STATE[1:]}/wakefulness").write_text("\n")
        before = state()
        ending, _ = await held(there(device, brightness=7, screen="on"))
        assert "dumpsys power: expected screen, got" in str(ending.error)
        assert state() == before


async def test_what_does_not_take_is_an_error_and_the_rest_is_put_back(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._condition.SETTLE_S", 0.0)
    async with plugged_in() as (phone, device, state):
        (phone.phone.tree / "system/bin/input").write_text("#!/bin/sh\n")
        before, began = state(), []
        ending, _ = await held(there(device, brightness=7, screen="on"), lambda: began.append(1))
        assert "screen: expected on, got off after 'input keyevent KEYCODE_WAKEUP'" in str(ending.error)
        assert (began, state()) == ([], before)


async def test_a_guard_puts_it_back_over_adb_where_the_recorder_is_killed(tmp_path):
    async with plugged_in() as (_, device, state):
        before = state()
        sections = f"""
[device.pixel8]
adb = "{device.serial}"
port = {device.port}
[collectors.phone_state]
device = "pixel8"
screen = "on"
brightness = 50
do_not_disturb = true
"""
        recorder = await trio.to_thread.run_sync(Recorder, tmp_path, sections)
        assert state() == before | {
            "wakefulness": "Awake", "global/zen_mode": "2", "system/screen_off_timeout": "86400000",
            "system/screen_brightness": "50", "system/screen_brightness_mode": "0",
        }  # fmt: skip
        await trio.to_thread.run_sync(recorder.end, signal.SIGKILL)
        assert state() == before


@pytest.mark.parametrize("config", [{"airplane": True}, {"wifi": False}])
def test_what_would_cut_adbs_own_way_is_refused(config):
    for serial in ("10.0.0.7:5555", "adb-28251FDH2000AB-x._adb-tls-connect._tcp"):
        with pytest.raises(ConfigError, match=r"expected adb over a cable for it, got .* would be cut"):
            there(Adb("pixel8", serial), **config)
    for device in (Adb("pixel8", "28251FDH2000AB"), Adb("pixel8", "127.0.0.1:5555"), Local("board")):
        there(device, **config)
    there(Adb("pixel8", "10.0.0.7:5555"), airplane=False, wifi=True)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"settings": {"low_power": "0"}}, "settings: expected system/KEY"),
        ({"settings": {"global/": "0"}}, "settings: expected system/KEY"),
        ({"brightness": -1}, "brightness: .* got -1"),
        ({"screen": "bright"}, "screen: .* got 'bright'"),
    ],
)
def test_a_wrong_recipe_is_refused(config, said):
    with pytest.raises(ConfigError, match=said):
        configure(PhoneState, config, "here")


STEPS = [Phone().setting("system/a", "1"), Phone().screen("on"), Phone().airplane(True), Phone().wifi(True), Phone().do_not_disturb(True), Phone().pretend_unplugged(True)]  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
@pytest.mark.parametrize(
    "said",
    ["", "cmd: Can't find service: connectivity\nno", "\x00\xff", "Exception occurred\nwhile executing"],
)
def test_what_is_no_state_is_none(step, said):
    with pytest.raises(ValueError, match=r"^n(o|ot|one) "):
        step.told(said)


def test_the_states_of_radios_and_of_do_not_disturb_are_androids():
    phone = Phone(("su", "0"))
    assert [phone.wifi(True).told(said) for said in "0123"] == ["off", "on", "on", "off"]
    zen = phone.do_not_disturb(True)
    assert [zen.change(zen.told(said))[0].words[-1] for said in "0123"] == [
        "off",
        "priority",
        "none",
        "alarms",
    ]
    assert phone.screen("on").told("  mWakefulness=Dozing\n") == "off"
    assert phone.airplane(False).change("off")[0].words == (
        "su",
        "0",
        "cmd",
        "connectivity",
        "airplane-mode",
        "disable",
    )

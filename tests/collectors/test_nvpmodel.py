"""A Jetson's power mode and clocks: read, set, put back, over real ssh; and what the tools print."""

from __future__ import annotations

import json
import signal

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._jetson_power import clocks, clocks_state, mode
from melt_stream.collectors.nvpmodel import Nvpmodel
from melt_stream.devices import Place, run
from melt_stream.plugins import configure
from tests.collectors.holding import Recorder, held, stages
from tests.emulators.board import board, needed, reached

pytestmark = needed


def there(device, **config):
    return configure(Nvpmodel, {"patience_s": 10.0, **config}, "here").on(Place(device))


async def told(device):
    said = [
        (await run(device, words)).out.decode() for words in (["nvpmodel", "-q"], ["jetson_clocks", "--show"])
    ]
    return mode(said[0])["mode"], clocks_state(said[1])


def facts(keep):
    return {row["name"]: json.loads(row["value"]) for row in keep.rows("run.facts")}


async def test_they_are_recorded_before_and_after():
    async with board() as place:
        ending, keep = await held(there(reached(place)))
        assert ending.error is None
        assert stages(keep, "nvpmodel") == {"before": ["0"], "after": ["0"]}
        assert stages(keep, "jetson_clocks") == {"before": ["free"], "after": ["free"]}
        found = facts(keep)["before"]
        assert found["nvpmodel"] == {"mode": 0, "name": "MAXN"}
        assert found["jetson_clocks"]["cpu1"]["MaxFreq"] == "2201600"
        assert found == facts(keep)["after"]


@pytest.mark.parametrize("pinned", [False, True])
async def test_they_are_set_and_put_back(pinned):
    async with board() as place:
        device = reached(place)
        if pinned:
            await run(device, ["jetson_clocks"])
        await run(
            device, ["touch", ".melt_stream_jetson_clocks"]
        )  # of another run: the tool asks before it overwrites it
        before = await told(device)
        ending, keep = await held(there(device, mode=2, jetson_clocks=True))
        assert ending.error is None
        assert before == await told(device) == (0, "pinned" if pinned else "free")
        assert stages(keep, "nvpmodel") == {"before": ["0"], "during": ["2"], "end": ["2"], "after": ["0"]}
        assert stages(keep, "jetson_clocks")["during"] == ["pinned"]
        if not pinned:
            assert (await run(device, ["ls", "-A"])).out == b""


async def test_clocks_that_a_mode_resets_are_pinned_again():
    async with board() as place:
        device = reached(place)
        await run(device, ["jetson_clocks"])
        ending, keep = await held(there(device, mode=2))
        assert ending.error is None
        assert await told(device) == (0, "pinned")
        assert stages(keep, "jetson_clocks") == {"before": ["pinned"], "after": ["free", "pinned"]}


async def test_clocks_that_somebody_else_pinned_cannot_be_freed(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._condition.SETTLE_S", 0.0)
    async with board() as place:
        device = reached(place)
        await run(device, ["jetson_clocks"])
        ending, _ = await held(there(device, jetson_clocks=False))
        assert "jetson_clocks: expected free, got pinned" in str(ending.error)
        assert await told(device) == (0, "pinned")


async def test_a_mode_that_needs_a_reboot_is_refused_and_nothing_changes(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._condition.SETTLE_S", 0.0)
    async with board() as place:
        device = reached(place)
        ending, _ = await held(there(device, mode=1, jetson_clocks=True))
        assert "nvpmodel: expected 1, got 0 after 'nvpmodel -m 1'" in str(ending.error)
        assert "try: this mode needs a reboot, which no run does: sudo nvpmodel -m 1" in str(ending.error)
        assert await told(device) == (0, "free")


async def test_a_board_without_the_tools_or_rights_says_so():
    async with board() as place:
        device = reached(place)
        ending, _ = await held(there(device, mode=2, through=["no-such-sudo"]))
        assert "orin: no-such-sudo nvpmodel -q: expected exit status 0, got 127" in str(ending.error)
        assert await told(device) == (0, "free")
        ending, _ = await held(there(device, through=["no-such-sudo"]))
        assert "expected exit status 0, got 127" in str(ending.error)
        ending, _ = await held(there(device, mode=9))
        assert "Invalid power model ID: 9" in str(ending.error)


async def test_clocks_that_root_alone_may_see_are_missed_only_where_they_are_to_be_set():
    async with board() as place:
        device = reached(place)
        not_root = ["sh", "-c", 'case $1 in jetson_clocks) exit 1 ;; esac; "$@"', "sh"]
        ending, keep = await held(there(device, mode=2, through=not_root))
        assert ending.error is None
        assert stages(keep)["during"] == ["2"]
        assert "expected exit status 0, got 1" in facts(keep)["before"]["jetson_clocks"]["unreadable"]
        ending, _ = await held(there(device, mode=2, jetson_clocks=True, through=not_root))
        assert "expected exit status 0, got 1" in str(ending.error)
        assert await told(device) == (0, "free")


async def test_a_guard_puts_it_back_over_ssh_where_the_recorder_is_killed(tmp_path):
    async with board() as place:
        device = reached(place)
        sections = f"""
[device.orin]
ssh = "{device.address}"
config = []
identity = "{device.identity}"
known_hosts = "{device.known_hosts}"
[collectors.nvpmodel]
device = "orin"
mode = 2
jetson_clocks = true
"""
        recorder = await trio.to_thread.run_sync(Recorder, tmp_path, sections)
        assert await told(device) == (2, "pinned")
        await trio.to_thread.run_sync(recorder.end, signal.SIGKILL)
        assert await told(device) == (0, "free")


async def test_what_to_run_by_hand_works_by_hand():
    async with board() as place:
        device = reached(place)
        by_hand = device.by_hand("nvpmodel -m 2 && echo 'it''s done'")
        done = await trio.run_process(
            ["sh", "-c", by_hand.replace("ssh ", "ssh -F none ", 1)], capture_stdout=True
        )
        assert done.stdout == b"its done\n"
        assert await told(device) == (2, "free")


# As boards print it, in public: an Orin Nano (JetPack 6, 25W), and a Nano that jetson_clocks has locked.
NANO_SUPER = """SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-5
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=1190400 IdleStates: WFI=1 c7=1
cpu5:  Online=0 Governor=schedutil MinFreq=1344000 MaxFreq=1344000 CurrentFreq=1190400 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69
NV Power Mode: 25W
"""
LOCKED = """cpu0: Online=1 Governor=schedutil MinFreq=1479000 MaxFreq=1479000 CurrentFreq=1479000 IdleStates: WFI=0 c7=0
GPU MinFreq=921600000 MaxFreq=921600000 CurrentFreq=921600000
EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=1
Fan: PWM=0
NV Power Mode: MAXN
"""


def test_clocks_of_real_boards():
    assert clocks_state(NANO_SUPER) == "free"
    assert clocks(NANO_SUPER)["FAN"]["hwmon0_pwm1"] == "69"
    assert clocks(NANO_SUPER)["cpu0"] == {
        "Online": "1", "Governor": "schedutil", "MinFreq": "729600", "MaxFreq": "1344000", "CurrentFreq": "1190400",
        "WFI": "1", "c7": "1",
    }  # fmt: skip
    assert clocks_state(LOCKED) == "pinned"
    for one, other in (
        ("FreqOverride=1", "FreqOverride=0"),
        ("GPU MinFreq=9", "GPU MinFreq=1"),
        ("MinFreq=147", "MinFreq=1"),
    ):
        assert clocks_state(LOCKED.replace(one, other)) == "free"


def test_modes_of_real_boards():
    assert mode("NV Power Mode: MAXN\n0\n") == {"mode": 0, "name": "MAXN"}
    assert mode("NVPM WARN: fan mode is not set!\r\nNV Power Mode: MODE_30W_ALL\r\n2\r\n") == {
        "mode": 2,
        "name": "MODE_30W_ALL",
    }
    assert mode("NVPM VERB: x\nNV Power Mode: MAXN SUPER\n2") == {"mode": 2, "name": "MAXN SUPER"}


@given(st.text())
def test_what_is_neither_is_refused(said):
    for parser in (mode, clocks):
        with pytest.raises(ValueError, match="no line"):
            parser(said)

"""USB supply is cut when all else measures, and restored before all else ends; the hubs' tools by what they print."""

from __future__ import annotations

import pytest
import trio

from melt_stream.collectors._usb_switches import uhubctl, ykush
from melt_stream.collectors.usb_power import UsbPower
from melt_stream.devices import Place
from melt_stream.devices.adb import Adb
from melt_stream.errors import ConfigError
from melt_stream.plugins import configure
from tests.collectors.holding import Bench, held, stages

UHUBCTL = """#!/bin/sh
# As uhubctl 2.5 prints: a hub with two halves, USB 3 and USB 2.
echo "$*" >>{log}
line() {{ case $(cat {file}) in off) echo "  Port 2: $1 off" ;; *) echo "  Port 2: $2 power $3" ;; esac; }}
both() {{
    echo "$1 status for hub 4-1 [14b0:0438 USB3.0 4 Port HUB, USB 3.20, 4 ports, ppps]"
    line 00a0 02a0 '5gbps Rx.Detect'
    echo "$1 status for hub 3-1 [14b0:0439 USB2.0 4 Port HUB, USB 2.10, 4 ports, ppps]"
    line 0000 0503 'highspeed enable connect [18d1:4ee7 Google Pixel 8 28251FDH2000AB]'
}}
both Current
case $* in *"-a off"*) echo off >{file}; echo "Sent power off request"; both New ;; *"-a on"*) echo on >{file}; echo "Sent power on request"; both New ;; esac
"""
YKUSH = """#!/bin/sh
echo "$*" >>{log}
case $* in
*-g*) printf '\\n\\nDownstream port 1 is %s\\n\\n' "$(cat {file} | tr a-z A-Z)" ;;
*-d*) echo off >{file} ;;
*-u*) echo on >{file} ;;
esac
"""


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, "on")


def tool(bench, script):
    bench.script.write_text(script.format(file=bench.file, log=bench.log))
    return ["/bin/sh", str(bench.script)]


@pytest.mark.parametrize(
    ("script", "config", "commands"),
    [
        (UHUBCTL, {"hub": "3-1", "port": 2}, ["uhubctl -l 3-1 -p 2", "uhubctl -l 3-1 -p 2 -a off", "uhubctl -l 3-1 -p 2 -a on"]),
        (YKUSH, {"ykush": "ykush", "serial": "YK1", "port": 1}, ["ykushcmd -s YK1 -g 1", "ykushcmd -s YK1 -d 1", "ykushcmd -s YK1 -u 1"]),
        (YKUSH, {"ykush": "ykushxs"}, ["ykushcmd ykushxs -g", "ykushcmd ykushxs -d", "ykushcmd ykushxs -u"]),
        (YKUSH, {"ykush": "ykush3", "port": 1}, ["ykushcmd ykush3 -g 1", "ykushcmd ykush3 -d 1", "ykushcmd ykush3 -u 1"]),
    ],
)  # fmt: skip
async def test_the_tools_cut_and_restore(bench, script, config, commands):
    seen = []
    usb = UsbPower(**config, through=tool(bench, script), settle_s=0.0)
    ending, keep = await held(usb, lambda: seen.append(bench.position))
    assert ending.error is None
    assert (seen, bench.position) == (["off"], "on")
    assert stages(keep) == {"before": ["on"], "during": ["off"], "end": ["off"], "after": ["on"]}
    state, cut, restore = commands
    assert bench.log.read_text().splitlines() == [state, cut, state, state, restore, state]


@pytest.mark.parametrize("said", ["No compatible devices detected!", "  Port 12: 0100 power", ""])
async def test_nothing_is_cut_where_it_cannot_be_seen_whether_there_is_power(bench, said):
    through = tool(bench, f"echo '{said}'; echo \"$*\" >>{{log}}")
    ending, _ = await held(UsbPower(hub="3-1", port=2, through=through))
    assert "nothing is set without it" in str(ending.error)
    assert "-a off" not in bench.log.read_text()


def commands(bench, **changed):
    known = {"cut": bench.words("off"), "restore": bench.words("on"), "state": bench.words("state")}
    return {**known, "settle_s": 0.0, "patience_s": 10.0, **changed}


async def test_any_command_does_also_without_a_state(bench):
    ending, keep = await held(UsbPower(**commands(bench, state=[])))
    assert ending.error is None
    assert bench.switched() == ["off", "on"]
    assert stages(keep) == {"during": ["off"]}


async def test_it_is_cut_when_the_rest_measures_and_restored_before_the_rest_ends(bench):
    seen = []

    class Sensor:
        async def collect(self, out):
            seen.append(("begins", bench.position))
            out.ready()
            try:
                await trio.sleep_forever()
            finally:
                seen.append(("ends", bench.position))

    ending, _ = await held(
        UsbPower(**commands(bench)), lambda: seen.append(("work", bench.position)), {"sensor": Sensor()}
    )
    assert ending.error is None
    assert seen == [("begins", "on"), ("work", "off"), ("ends", "on")]


async def test_a_supply_that_does_not_go_off_is_an_error_before_anything_is_measured(bench, monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._condition.SETTLE_S", 0.0)
    bench.stuck.touch()
    began = []
    ending, _ = await held(UsbPower(**commands(bench)), lambda: began.append(1))
    assert "usb_power: expected off, got on after" in str(ending.error)
    assert began == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "expected one of hub, ykush, cut, got none"),
        ({"hub": "1-1", "cut": ["x"], "restore": ["y"]}, "got hub, cut"),
        ({"cut": ["x"]}, "expected the commands cut and restore"),
        ({"hub": "1-1"}, "port: expected the hub's port, got none"),
        ({"ykush": "ykush"}, "port: expected the ykush's port, got none"),
        ({"ykush": "yakush", "port": 1}, "input should be"),
        ({"cut": ["x"], "restore": ["y"], "powered": "("}, "powered: expected a regular expression"),
    ],
)
def test_a_wrong_recipe_is_refused(config, said):
    with pytest.raises(ConfigError, match=said):
        configure(UsbPower, config, "here")


def test_adb_over_the_cable_that_is_cut_is_warned_of(caplog):
    usb = UsbPower(hub="1-1", port=1)
    for serial in ("10.0.0.7:5555", "adb-28251FDH2000AB-x._adb-tls-connect._tcp"):
        usb.on(Place(Adb("pixel8", serial)))
    assert caplog.text == ""
    assert usb.on(Place(Adb("pixel8", "28251FDH2000AB"))) == usb
    assert "pixel8 is reached by adb over USB" in caplog.text


def test_the_commands_of_the_hubs():
    assert uhubctl(["sudo", "-n"], "1-1.4", 3).cut == [
        "sudo",
        "-n",
        "uhubctl",
        "-l",
        "1-1.4",
        "-p",
        "3",
        "-a",
        "off",
    ]
    assert ykush([], "ykush2", "", 2).restore == ["ykushcmd", "ykush2", "-u", "2"]

"""OpenSSH's own clients take our Jetson for a machine, and its files are those of a recorded one."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from melt_stream.clock import monotonic
from melt_stream.collectors._tegrastats import parse
from melt_stream.emulators import Faults, Load
from melt_stream.emulators._jetson_tree import Tree
from melt_stream.emulators._sshd import Machine
from melt_stream.emulators.jetson import Jetson
from melt_stream.errors import ConfigError
from tests.emulators.board import board, needed

RECORDED = Path(__file__).parents[2] / "../shared/traces/jetson_sysfs/orin_agx"
OURS = {"name", "samples", "update_interval", *(f"in{n}_enable" for n in (1, 2, 3)), *(f"shunt{n}_resistor" for n in (1, 2, 3))}  # fmt: skip
"""What a recorder of values left out."""
QUIET = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]


def options(place, port="-p"):
    known = ["-o", f"UserKnownHostsFile={place['known_hosts']}", "-o", "GlobalKnownHostsFile=none"]
    return [*QUIET, *known, "-i", place["identity"], port, str(place["tcp_port"])]


async def ssh(place, command, *, check=True):
    words = ["ssh", *options(place), f"{place['user']}@{place['host']}", command]
    return await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=check)


async def said(place, command):
    return (await ssh(place, command)).stdout.decode()


@needed
async def test_openssh_is_let_in_and_reads_rails_that_follow_the_load():
    watts = [10.0]
    jetson = Jetson(load=Load.live(lambda seconds: seconds * 0 + watts[0]))
    async with board(jetson) as place:
        sys_ = f"{place['root'].rstrip('/')}/sys"
        script = f"cd {sys_}/class/hwmon; cat hwmon*/name; cat hwmon3/in[123]_label hwmon3/curr[1234]_input hwmon3/in[4567]_input"
        assert (await said(place, script)).split() == [
            "ina3221", "ina3221", "VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0",
            "260", "100", "600", "960", "520", "200", "1200", "1920",
        ]  # fmt: skip
        watts[0] = 40.0
        while await said(place, f"cat {sys_}/class/hwmon/hwmon3/curr1_input") != "1000\n":
            pass
        assert (await ssh(place, "exit 5", check=False)).returncode == 5
        zones = await said(place, f"cat {sys_}/class/thermal/thermal_zone[12]/*")
        assert zones.split() == ["35125", "GPU-therm", "-256000", "CV0-therm"]


@needed
async def test_scp_copies_there_and_back(tmp_path):
    async with board() as place:
        (tmp_path / "a").write_bytes(bytes(range(256)) * 1000)
        folder = Path(place["identity"]).with_name("home") if place["root"] == "/" else tmp_path
        home = f"{place['user']}@{place['host']}:{folder}"
        for source, target in ((str(tmp_path / "a"), f"{home}/b"), (f"{home}/b", str(tmp_path / "c"))):
            await trio.run_process(["scp", "-q", *options(place, "-P"), source, target])
        assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()


@needed
async def test_a_stranger_is_not_let_in_and_another_machine_is_not_taken_for_it():
    async with board() as first, board() as second:
        stranger = await ssh({**first, "identity": second["identity"]}, "true", check=False)
        assert (stranger.returncode, b"Permission denied" in stranger.stderr) == (255, True)
        other = await ssh({**first, "known_hosts": second["known_hosts"]}, "true", check=False)
        assert (other.returncode, b"Host key verification failed" in other.stderr) == (255, True)


@needed
@pytest.mark.parametrize("generation", [4, 6, 7])
async def test_tegrastats_speaks_the_grammar_of_its_generation(generation):
    async with board(Jetson(load=Load.parse("constant:20W"), generation=generation)) as place:
        lines = (await said(place, "tegrastats --interval 20 | head -n 3")).splitlines()
        assert len(lines) == 3
        for line in lines:
            found = parse(line)
            assert found is not None
            assert found.watts == {"VDD_GPU_SOC": 9.976, "VDD_CPU_CV": 3.988, "VIN_SYS_5V0": 6.009}
            assert (found.date_s is None) == (generation == 4)
            assert found.celsius["CPU" if generation == 4 else "cpu"] > 40
            assert found.state["gpu_load"] in {39.0, 12.0}
            assert line.count("mW/") == {4: 0, 6: 3, 7: 6}[generation]
        if generation == 6:
            assert await said(place, "nvpmodel -q") == "NV Power Mode: MAXN\n0\n"
            assert "cpu0: Online=1 Governor=schedutil MinFreq=" in await said(place, "jetson_clocks --show")


@needed
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="expected root, for a time namespace")
@pytest.mark.skipif(shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime")
async def test_its_clocks_are_its_own():
    """1 % fast and 37 s ahead, for every process alike; its monotonic clock is another than ours."""
    jetson = Jetson(offset_s=37.0, uptime_s=5000.0, faults=Faults.parse(["rate:10000"]))
    stamp = "cat /proc/uptime; echo $EPOCHREALTIME; bash -c 'echo $EPOCHREALTIME'"
    async with board(jetson) as place:
        before = monotonic()
        first = (await said(place, stamp)).split()
        middle = monotonic()
        await trio.sleep(1)  # a second must pass for a hundredth of it to show
        last = monotonic()
        second = (await said(place, stamp)).split()
        after = monotonic()
    host = after / 1e9
    assert 4990 < float(second[0]) - host < 5010
    assert 0 <= float(first[3]) - float(first[2]) < 1  # one process is no younger than another
    passed = float(second[2]) - float(first[2])
    assert 1.009 * (last - middle) / 1e9 <= passed <= 1.011 * (after - before) / 1e9


@needed
async def test_the_cable_is_pulled_and_put_back_while_commands_go_on():
    jetson = Jetson(faults=Faults.parse(["unplug@0.5:0.3"]))
    async with board(jetson) as place:
        held = await ssh(place, "echo going; exec cat /dev/zero >/dev/null", check=False)
        assert held.returncode == 255
        assert [done.kind for done in jetson.faults.done] == ["unplug"]
        while (await ssh(place, "echo back", check=False)).stdout != b"back\n":
            pass


@needed
async def test_a_stalled_link_goes_on_where_it_was():
    jetson = Jetson()
    async with board(jetson) as place:
        process = await trio.lowlevel.open_process(
            ["ssh", *options(place), f"{place['user']}@{place['host']}", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        await process.stdin.send_all(b"1\n")
        assert await process.stdout.receive_some() == b"1\n"
        jetson.machine.signal(signal.SIGSTOP)
        await process.stdin.send_all(b"2\n")
        with trio.move_on_after(0.2) as silent:
            await process.stdout.receive_some()
        assert silent.cancelled_caught
        jetson.machine.signal(signal.SIGCONT)
        assert await process.stdout.receive_some() == b"2\n"
        await process.stdin.aclose()
        assert await process.wait() == 0
        await process.stdout.aclose()


@pytest.mark.skipif(not RECORDED.exists(), reason="expected ../shared/traces/jetson_sysfs")
def test_its_tree_has_the_files_of_a_recorded_one(tmp_path):
    tree = Tree(tmp_path)
    tree.lay(20)
    tree.show(12.0)
    theirs = {str(path.relative_to(RECORDED)) for path in RECORDED.rglob("*") if path.is_file()}
    found = [path for path in tmp_path.rglob("*") if path.is_file() and "class" not in path.parts]
    ours = {str(path.relative_to(tmp_path)) for path in found}
    assert theirs <= ours
    assert {Path(path).name for path in ours - theirs} == OURS
    for path in theirs:
        mine, recorded = (tmp_path / path).read_text().strip(), (RECORDED / path).read_text().strip()
        if path.endswith(("_label", "type", "temp", "in1_input", "in2_input", "in3_input")):
            assert mine == recorded, path
        else:
            assert bool(mine) == bool(recorded), path  # a sum over a channel that is off is empty


def test_a_generation_that_never_was_is_refused():
    with pytest.raises(ValueError, match="generation: expected one of"):
        Jetson(generation=5)


async def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("melt_stream.emulators._sshd.shutil.which", lambda _: None)
    with pytest.RaisesGroup(
        pytest.RaisesExc(ConfigError, match="expected ssh-keygen, got none; try: apt-get install")
    ):
        async with board():
            pass


@needed
def test_the_command_tells_where_it_is_and_ends_with_all_it_started():
    words = [sys.executable, "-m", "melt_stream", "emulate", "jetson", "--load", "constant:5W", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        place = json.loads(process.stdout.readline())
        assert {"host", "tcp_port", "user", "identity", "known_hosts", "root"} <= place.keys()
        folder = Path(place["identity"]).parent
        done = subprocess.run(
            ["ssh", *options(place), f"{place['user']}@{place['host']}", "nohup sleep 4712 >/dev/null 2>&1 & echo on"],
            capture_output=True, check=True,
        )  # fmt: skip
        assert done.stdout == b"on\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not folder.exists()
    if place["root"] == "/":
        assert (
            subprocess.run(["pgrep", "-x", "-f", "sleep 4712"], check=False, capture_output=True).stdout
            == b""
        )


async def test_a_user_whom_sshd_does_not_let_in_is_told(tmp_path, monkeypatch):
    nobody = pwd.struct_passwd(("nobody", "x", 65534, 65534, "", "/", "/usr/sbin/nologin"))
    monkeypatch.setattr("pwd.getpwuid", lambda _: nobody)
    with pytest.raises(
        ConfigError,
        match=r"expected a user with a shell, whom sshd lets in, got nobody with /usr/sbin/nologin",
    ):
        async with Machine(tmp_path, own=False).up("127.0.0.1", 1):
            pass

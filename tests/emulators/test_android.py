"""The emulated phone's adbd, read by three programs that we did not write: Debian's adb, Google's own, and PyPI's adb-shell."""

from __future__ import annotations

import os
import shutil
from functools import partial

import pytest
import trio
from adb_shell.adb_device import AdbDeviceTcp

from melt_stream.emulators._adbd import VERSION, packet
from tests.emulators.playing_android import ADBS, playing, serving

MEGABYTES = os.urandom(3_000_000)
STORY = "echo out; echo err >&2; cat; exit 7"


@pytest.fixture(scope="module", params=ADBS)
def adb(request):
    with serving(request.param) as it:
        yield it


async def test_adb_connects_runs_commands_copies_files_and_forwards_ports(adb, tmp_path):
    (tmp_path / "here").write_bytes(MEGABYTES)
    async with playing() as (phone, place):
        serial = place["serial"]
        assert b"connected to" in (await adb("connect", serial)).stdout
        assert b"model:Emulated_Phone" in (await adb("devices", "-l")).stdout
        done = await adb("-s", serial, "shell", STORY, stdin=b"given\n")
        assert (done.returncode, done.stdout, done.stderr) == (7, b"out\ngiven\n", b"err\n")
        there = f"{tmp_path}/there/it"
        await adb("-s", serial, "push", str(tmp_path / "here"), there)
        assert phone.phone.find(there).read_bytes() == MEGABYTES
        await adb("-s", serial, "pull", there, str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == MEGABYTES
        listed = (await adb("-s", serial, "ls", f"{tmp_path}/there")).stdout
        assert b"%08x" % len(MEGABYTES) in listed
        assert (await adb("-s", serial, "exec-out", "printf 'a\\r\\nb'")).stdout == b"a\r\nb"
        await forwarded(adb, serial)
        refused = await adb("-s", serial, "pull", "/no/such", str(tmp_path / "none"))
        assert refused.returncode != 0
        assert b"disconnected" in (await adb("disconnect", serial)).stdout
        assert serial.encode() not in (await adb("devices")).stdout


async def forwarded(adb, serial):
    """A port of the phone's loopback, which is this machine's, comes here; one where nobody listens, ends."""

    async def shout(stream):
        async with stream:
            while data := await stream.receive_some(100):
                await stream.send_all(data.upper())

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, shout, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        ours = int((await adb("-s", serial, "forward", "tcp:0", f"tcp:{port}")).stdout)
        async with await trio.open_tcp_stream("127.0.0.1", ours) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some(100) == b"HELLO"
        nursery.cancel_scope.cancel()
    async with await trio.open_tcp_stream("127.0.0.1", ours) as stream:
        assert await stream.receive_some(100) == b""


async def test_a_dropped_link_and_a_reboot_are_seen_and_it_comes_back(adb):
    async with playing() as (phone, place):
        serial = place["serial"]
        await adb("connect", serial)
        before = (
            await adb("-s", serial, "shell", "cat /proc/sys/kernel/random/boot_id; cat /proc/uptime")
        ).stdout
        assert len(before.split()[0]) == 36
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def hanging():
                done = await adb("-s", serial, "shell", "echo begun; exec sleep 50")
                assert done.stdout == b"begun\n"
                ended.set()

            nursery.start_soon(hanging)
            await adb("-s", serial, "shell", "true")
            await trio.sleep(0.3)  # one that was never begun would end just so
            phone.unplug(0.1)
            with trio.fail_after(10):
                await ended.wait()
        await again(adb, serial)
        await adb("-s", serial, "reboot")
        await again(adb, serial)
        after = (await adb("-s", serial, "shell", "cat /proc/sys/kernel/random/boot_id")).stdout
        assert (after.split()[0] != before.split()[0]) is phone.phone.own_root


async def again(adb, serial):
    with trio.fail_after(20):
        while b"already" in (said := (await adb("connect", serial)).stdout) or b"connected to" not in said:
            await adb("disconnect", serial)


async def test_adb_shell_talks_to_it_without_a_server(tmp_path):
    async with playing() as (_, place):

        def talk():
            device = AdbDeviceTcp(place["host"], place["tcp_port"], default_transport_timeout_s=20)
            assert device.connect()
            said = device.shell("echo out; echo err >&2")
            (tmp_path / "here").write_bytes(MEGABYTES)
            device.push(str(tmp_path / "here"), f"{tmp_path}/there")
            device.pull(f"{tmp_path}/there", str(tmp_path / "back"))
            names = [entry.filename for entry in device.list(str(tmp_path))]
            size = device.stat(f"{tmp_path}/there")[1]
            device.close()
            return said, names, size

        said, names, size = await trio.to_thread.run_sync(talk)
    assert sorted(said.split()) == ["err", "out"]
    assert b"there" in names
    assert size == len(MEGABYTES)
    assert (tmp_path / "back").read_bytes() == MEGABYTES


async def test_what_no_host_says_ends_the_link_and_a_service_that_it_lacks_is_refused():
    async with playing() as (_, place):
        async with await trio.open_tcp_stream(place["host"], place["tcp_port"]) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: phone\r\n\r\n")
            with pytest.raises(trio.BrokenResourceError):  # it was closed with some of that unread
                await stream.receive_some(100)
        async with await trio.open_tcp_stream(place["host"], place["tcp_port"]) as stream:
            await stream.send_all(packet(b"CNXN", VERSION, 1 << 20, b"host::"))
            assert (await stream.receive_some(1000)).startswith(b"CNXN")
            await stream.send_all(packet(b"OPEN", 5, 0, b"framebuffer:\0"))
            assert await stream.receive_some(1000) == packet(b"CLSE", 0, 5)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="expected faketime: apt-get install faketime")
async def test_its_files_follow_the_load_and_its_wall_clock_is_its_own():
    async with playing("rate:80", load="constant:3.85W", ahead_ms=1500, volts=3.85) as (_, place):
        with serving(ADBS[0]) as adb:
            await adb("connect", place["serial"])
            supply = f"{place['root'].rstrip('/')}/sys/class/power_supply"
            told = await adb("-s", place["serial"], "shell", f"cat {supply}/battery/current_now; date +%s%N")
            amps, wall = told.stdout.split()
            assert int(amps) == -1_000_000
            clock = (await trio.run_process(["date", "+%s%N"], capture_stdout=True)).stdout
            assert 0 < int(wall) - int(clock) < 1.5e9 + 1e6  # ours was read later


async def test_without_root_its_files_are_below_the_root_that_it_tells(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    async with playing(load="constant:1A") as (_, place):
        assert place["root"] != "/"

        def talk():
            device = AdbDeviceTcp(place["host"], place["tcp_port"], default_transport_timeout_s=20)
            device.connect()
            said = device.shell(f"cat {place['root']}/sys/class/power_supply/battery/current_now")
            device.close()
            return said

        assert await trio.to_thread.run_sync(talk) == "-1000000\n"


async def test_a_stall_delays_what_it_sends_and_a_slow_link_takes_its_time():
    async with playing("stall@0:0.3", "slow@0:100") as (phone, place):
        while phone.faults.orders:  # noqa: ASYNC110 - they are played within 10 ms
            await trio.sleep(0.001)
        async with await trio.open_tcp_stream(place["host"], place["tcp_port"]) as stream:
            began = trio.current_time()
            await stream.send_all(packet(b"CNXN", VERSION, 1 << 20, b"host::"))
            assert (await stream.receive_some(1000)).startswith(b"CNXN")
            await stream.send_all(packet(b"OPEN", 5, 0, b"exec:head -c 20000 /dev/zero\0"))
            got = b""
            while packet(b"CLSE", 1, 5) not in got:
                got += await stream.receive_some(1 << 16)
                await stream.send_all(packet(b"OKAY", 5, 1))
            assert got.count(0) > 20_000
            assert trio.current_time() - began > 0.2 + 20_000 / 100_000

"""A real sshd, reached by our device: commands, files, ports, one connection for all, and each way in which it can fail."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from melt_stream import FileSensor, Stream, W
from melt_stream.collectors.hwmon import Hwmon
from melt_stream.devices import Gone, Sampled, run
from melt_stream.devices.sampled import Boots
from melt_stream.devices.ssh import HostKeyChanged, HostKeyUnknown, KeyRefused, Ssh
from melt_stream.emulators import Load
from melt_stream.emulators.jetson import Jetson
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.testing import Keep
from melt_stream.testing.leaks import no_leaks
from tests.emulators.board import board, needed, reached

pytestmark = needed


@pytest.fixture(autouse=True)
def _no_agent(monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


async def test_a_command_has_its_exit_status_its_signal_its_words_and_a_deadline():
    async with board() as place:
        device = reached(place)
        async with no_leaks():
            done = await run(device, ["sh", "-c", "cat; echo 'so so' >&2; exit 7"], stdin=b"in\n")
            assert (done.status, done.out, done.complaints) == (7, b"in\n", "so so")
            assert (await run(device, ["sh", "-c", "kill -9 $$"])).status == -signal.SIGKILL
            big = await run(device, ["head", "-c", "5000000", "/dev/zero"])
            assert big.out == bytes(5_000_000)
            with pytest.raises(Transient, match=r"sleep 4711: expected its end within 0.1 s"):
                await run(device, ["sleep", "4711"], deadline_s=0.1)
            with trio.fail_after(10):
                while (await run(device, ["pgrep", "-x", "-f", "sleep 4711"])).status == 0:
                    pass  # it was killed: it goes


async def test_tasks_share_one_connection_in_any_order_of_their_ends():
    jetson = Jetson()
    async with board(jetson) as place:
        device, together = reached(place), []
        scopes = [trio.CancelScope() for _ in range(4)]
        going = [trio.Event() for _ in scopes]

        async def hold(k):
            with scopes[k]:
                async with device.channel("cat") as channel:
                    await channel.send(b"%d" % k)
                    together.append(await channel.receive())
                    going[k].set()
                    await trio.sleep_forever()

        async with no_leaks(), trio.open_nursery() as nursery:
            for k in range(4):
                nursery.start_soon(hold, k)
            for event in going:
                await event.wait()
            assert sorted(together) == [b"0", b"1", b"2", b"3"]
            assert len(jetson.machine.running) == 1
            for k in (0, 2, 3):  # the first, whose task opened the connection, goes first
                scopes[k].cancel()
            assert (await run(device, ["echo", "on"])).out == b"on\n"
            assert len(jetson.machine.running) == 1
            scopes[1].cancel()
        with trio.fail_after(5):
            while jetson.machine.running:
                await trio.lowlevel.checkpoint()
        assert (await run(device, ["echo", "again"])).out == b"again\n"


async def test_one_who_gives_up_while_it_connects_leaves_nothing():
    async with board() as place:
        for patience in (0, 0.001, 0.01, 0.03):
            async with no_leaks():
                with trio.move_on_after(patience):
                    async with reached(place).channel("cat"):
                        await trio.sleep_forever()


async def test_files_go_there_and_back_and_are_whole(tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(data)
    async with board() as place, no_leaks():
        device, home = reached(place), Path(place["identity"]).with_name("home")
        remote = str(home / "it's on the board")
        await device.push(tmp_path / "a", remote)
        said = await run(device, ["sha256sum", remote])
        assert said.out.split()[0].decode() == hashlib.sha256(data).hexdigest()
        await device.pull(remote, tmp_path / "b")
        assert (tmp_path / "b").read_bytes() == data
        with pytest.raises(DeviceError, match="expected to copy a file, got: No such file"):
            await device.pull(str(home / "no"), tmp_path / "c")
        with pytest.raises(DeviceError, match="expected to copy a file, got: No such file"):
            await device.push(tmp_path / "a", str(home / "no/where"))
        assert [path.name for path in home.iterdir()] == ["it's on the board"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


async def test_a_copy_that_differs_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("whole")
    async with board() as place:
        monkeypatch.setattr("melt_stream.devices.ssh.sha256_of", lambda _: "0" * 64)
        home = Path(place["identity"]).with_name("home")
        with pytest.raises(DeviceError, match="expected SHA-256 0000"):
            await reached(place).push(tmp_path / "a", str(home / "b"))
        assert not (home / "b").exists()


async def test_a_port_of_its_loopback_is_ours_for_a_while():
    async with board() as place, no_leaks(), trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lambda stream: stream.send_all(b"served"), 0)
        async with (
            reached(place).forward(listeners[0].socket.getsockname()[1]) as port,
            await trio.open_tcp_stream("127.0.0.1", port) as stream,
        ):
            assert await stream.receive_some() == b"served"
        with pytest.raises(OSError, match="127"):
            await trio.open_tcp_stream("127.0.0.1", port)
        nursery.cancel_scope.cancel()


async def test_a_configuration_and_a_jump_host_are_honoured(tmp_path):
    async with board() as place, no_leaks():
        (tmp_path / "config").write_text(
            f"Host bench\n HostName {place['host']}\n Port {place['tcp_port']}\n User {place['user']}\n"
            f" IdentityFile {place['identity']}\n UserKnownHostsFile {place['known_hosts']}\n"
            "Host behind\n HostName 127.0.0.1\n HostKeyAlias bench\n ProxyJump bench\n"
        )
        assert (
            await run(Ssh("orin", "bench", config=[str(tmp_path / "config")]), ["echo", "hi"])
        ).out == b"hi\n"
        through = reached(place, jump=f"{place['user']}@{place['host']}:{place['tcp_port']}")
        done = await run(through, ["sh", "-c", "echo $SSH_CONNECTION"])
        assert done.out.startswith(b"127.0.0.1 ")


async def test_no_configuration_turns_the_check_of_host_keys_off(tmp_path):
    async with board() as place:
        (tmp_path / "config").write_text("Host *\n UserKnownHostsFile none\n StrictHostKeyChecking no\n")
        with pytest.raises(HostKeyUnknown, match="ssh-keyscan -p"):
            await run(reached(place, config=[str(tmp_path / "config")], known_hosts=""), ["true"])


async def test_an_unknown_and_a_changed_host_key_are_refused_and_told_apart(tmp_path):
    async with board() as first, board() as second:
        (tmp_path / "none").write_text("")
        with pytest.raises(
            HostKeyUnknown, match=r"expected a known host key, got ssh-ed25519 SHA256:.*ssh-keyscan -p"
        ):
            await run(reached(first, known_hosts=str(tmp_path / "none")), ["true"])
        with pytest.raises(HostKeyUnknown):
            await run(reached(first, known_hosts=str(tmp_path / "not there")), ["true"])
        key = await trio.Path(second["known_hosts"]).read_text()
        key = key.partition(" ")[2]
        (tmp_path / "other").write_text(f"[{first['host']}]:{first['tcp_port']} {key}")
        async with no_leaks():
            with pytest.raises(
                HostKeyChanged,
                match=r"expected the host key SHA256:.*somebody may be listening.*ssh-keygen -R",
            ):
                await run(reached(first, known_hosts=str(tmp_path / "other")), ["true"])


async def test_who_is_not_let_in_or_not_there_is_told(tmp_path):
    async with board() as first, board() as second:
        async with no_leaks():
            with pytest.raises(
                KeyRefused, match=r"orin .*expected one of our keys to be accepted.*ssh-copy-id"
            ):
                await run(reached(first, identity=second["identity"]), ["true"])
        with pytest.raises(DeviceError, match="expected a key or a configuration, got"):
            await run(reached(first, identity=str(tmp_path / "no")), ["true"])
    with pytest.raises(Gone, match=r"expected a link, got.*ssh -v"):
        await run(reached(first, identity=""), ["true"])
    with pytest.raises(DeviceError, match="expected a machine of that name") as caught:
        await run(Ssh("orin", "nobody@host.invalid", config=[]), ["true"])
    assert not isinstance(caught.value, Transient)
    for wrong in ("", "a@b@c", "a b", "host:port"):
        with pytest.raises(ConfigError, match="expected user@host"):
            Ssh("orin", wrong)


async def test_a_link_that_drops_is_never_a_clean_end():
    jetson = Jetson()
    async with board(jetson) as place:
        device = reached(place)
        async with device.channel("echo going; cat") as channel:
            assert await channel.receive() == b"going\n"
            jetson.machine.signal(signal.SIGKILL)
            with pytest.raises(Gone, match="got the end of the link"):
                await channel.receive()
            with pytest.raises(Gone):
                await channel.status()
            with pytest.raises(Gone):
                await channel.send(b"x")
            assert (
                await run(device, ["echo", "back"])
            ).out == b"back\n"  # a new link, while the old one is still held


async def test_a_link_that_is_half_dead_is_noticed():
    jetson = Jetson()
    async with board(jetson) as place:
        device = reached(place, keep_alive_s=0.3)
        async with device.channel("echo going; cat") as channel:
            assert await channel.receive() == b"going\n"
            jetson.machine.signal(signal.SIGSTOP)
            with trio.fail_after(20), pytest.raises(Gone):
                await channel.receive()
            jetson.machine.signal(signal.SIGCONT)


async def test_a_server_that_says_nothing_of_ssh_is_gone():
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            trio.serve_tcp, lambda stream: stream.send_all(b"HTTP/1.1 400\r\n\r\n"), 0
        )
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(Gone, match="expected a link"):
            await run(Ssh("orin", f"x@127.0.0.1:{port}", config=[]), ["true"])
        nursery.cancel_scope.cancel()
    with socket.socket() as quiet:
        quiet.bind(("127.0.0.1", 0))
        with pytest.raises(Gone):
            await run(Ssh("orin", f"x@127.0.0.1:{quiet.getsockname()[1]}", config=[]), ["true"])


@dataclass
class Until:
    """A workload that ends when its condition holds; asked at each flush."""

    holds: object

    async def collect(self, out):
        while not self.holds():
            await out.flushing()


@dataclass
class Ten(FileSensor):
    """The ten files of the first chip that change."""

    stream = Stream("rails", watts=W)

    def files(self, find):
        found = find("sys/class/hwmon/hwmon3/*_input")
        return {path.rpartition("/")[2]: path for path in found if not path.endswith("curr4_input")}

    def parse(self, files):
        assert len(files) == 10
        return {
            "watts": sum(int(files[f"in{n}_input"]) * int(files[f"curr{n}_input"]) for n in (1, 2, 3)) / 1e6
        }


async def test_a_sensor_of_files_is_sampled_there_and_comes_back_after_a_dropped_link():
    jetson = Jetson(load=Load.parse("constant:20W"), uptime_s=5000.0)
    async with board(jetson) as place:
        device, keep, dropped, root = reached(place), Keep(), [], str(place["root"])

        def seen():
            count = len(keep.rows("it.rails"))
            if count >= 200 and not dropped:
                dropped.append(count)
                jetson.machine.signal(signal.SIGKILL)
            return dropped and count >= dropped[0] + 50 and keep.rows("too.supply")

        boots = Boots()
        collectors = {
            "it": Sampled(Ten(hz=100, root=root), device, boots), "too": Sampled(Hwmon(hz=10, root=root), device, boots)
        }  # fmt: skip
        with trio.fail_after(60):
            ending = await record(
                collectors, [keep], {"until": Until(seen)}, devices=dict.fromkeys(collectors, "orin"), flush_every=0.01
            )  # fmt: skip
    assert ending.error is None
    rows = keep.rows("it.rails")
    assert {(row["watts"], row["epoch"]) for row in rows} == {(19.9744, 0)}
    too = {(row["rail"], row["volts"], row["amps"]) for row in keep.rows("too.supply") if row["volts"]}
    assert too == {
        ("ina3221@hwmon3-VDD_GPU_SOC", 19.952, 0.5), ("ina3221@hwmon3-VDD_CPU_CV", 19.944, 0.2), ("ina3221@hwmon3-VIN_SYS_5V0", 5.008, 1.2),
        ("ina3221@hwmon4-VDDQ_VDD2_1V8AO", 5.016, 0.4),
    }  # fmt: skip
    gaps = [row for row in keep.rows("run.gaps") if "got the end of the l" in row["reason"]]
    assert {row["stream"] for row in gaps} >= {"rails"}
    readings = [row for row in keep.rows("run.readings") if row["clock_of"] == "orin.realtime"]
    assert len(readings) >= 16
    assert {row["kind"] for row in readings} == {"round_trip"}
    trips = sorted(row["not_after"] - row["not_before"] for row in readings)
    before = [row["tick"] for row in rows[: dropped[0]]]
    slots = round((before[-1] - before[0]) / 10_000)
    print(
        f"100 Hz, ten files: {max(0, 1 - (len(before) - 1) / slots):.2%} of {slots} ticks missed; round trip at least {trips[0] / 1e3:.0f} us"
    )


def test_asyncio_is_as_before_for_everybody_else():
    import asyncio  # noqa: TID251 - it is what this is about

    async def elsewhere() -> str:
        return type(asyncio.get_running_loop()).__module__

    assert asyncio.run(elsewhere()).startswith("asyncio.")

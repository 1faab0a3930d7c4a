"""A phone over real adb servers: commands, files, ports, what goes wrong, and a sensor's rows on the phone's clock."""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.clocks import fit
from melt_stream.collectors.battery import Battery
from melt_stream.devices import Gone, Sampled, run
from melt_stream.devices._adb_server import (
    EXIT,
    STDERR,
    STDOUT,
    Packet,
    Packets,
    framed,
    refusal,
)
from melt_stream.devices.adb import Absent, Adb, NoServer, Offline, Refused, Unauthorized, devices
from melt_stream.engine import record
from melt_stream.errors import DeviceError, Transient
from melt_stream.internal import READINGS
from melt_stream.testing import Keep
from tests.emulators.playing_android import ADBS, playing, serving


@pytest.fixture(scope="module", params=ADBS)
def each_server(request):
    with serving(request.param) as it:
        yield it


@pytest.fixture
def server(each_server):
    yield each_server
    each_server.run("disconnect")


@pytest.fixture
def one_server():
    with serving(ADBS[0]) as it:
        yield it


async def test_commands_run_with_their_status_and_files_come_whole(server, tmp_path):
    here, back = tmp_path / "here", tmp_path / "back"
    here.write_bytes(os.urandom(3_000_000))
    async with playing() as (_, place):
        phone = Adb(
            "phone", place["serial"], port=server.port
        )  # the server does not know it: it is connected to
        done = await run(phone, ["sh", "-c", "cat; echo 'so so' >&2; exit 7"], stdin=b"in" * 100_000)
        assert (done.status, done.out, done.complaints) == (7, b"in" * 100_000, "so so")
        assert (await run(phone, ["sh", "-c", "kill -9 $$"])).status == 128 + 9
        with pytest.raises(Transient, match=r"sleep 60: expected its end within 0.2 s"):
            await run(phone, ["sleep", "60"], deadline_s=0.2)
        await phone.push(here, f"{tmp_path}/new/there")
        await phone.pull(f"{tmp_path}/new/there", back)
        assert back.read_bytes() == here.read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {"here", "back", "new"}
        with pytest.raises(DeviceError, match="expected the file /no/such, got"):
            await phone.pull("/no/such", back)
        with pytest.raises(DeviceError, match="push to /proc/x"):
            await phone.push(here, "/proc/x")
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, _shout, 0, host="127.0.0.1"))
            async with (
                phone.forward(listener.socket.getsockname()[1]) as port,
                await trio.open_tcp_stream("127.0.0.1", port) as stream,
            ):
                await stream.send_all(b"hello")
                assert await stream.receive_some(100) == b"HELLO"
            nursery.cancel_scope.cancel()
        with pytest.raises(OSError, match=r"refused|failed"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def _shout(stream):
    await stream.send_all((await stream.receive_some(100)).upper())


async def test_a_link_that_drops_or_a_phone_that_reboots_is_gone_and_comes_back(server):
    async with playing() as (emulated, place):
        phone = Adb("phone", place["serial"], port=server.port)
        async with phone.channel("echo begun; exec sleep 60") as channel:
            assert await channel.receive() == b"begun\n"
            emulated.unplug(0.0)
            with pytest.raises(Gone, match="phone: expected more from the phone, got the end of the stream"):
                await channel.status()
        with trio.fail_after(20):
            await _until_there(phone)
            await phone.reboot()
            await trio.sleep(0.1)
            await _until_there(phone)


async def _until_there(phone):
    out = b""
    while out != b"again\n":
        with suppress(Gone):
            out = (await run(phone, ["echo", "again"])).out
        await trio.sleep(0.05)


async def test_what_is_not_there_is_told_apart(one_server, tmp_path):
    with pytest.raises(
        NoServer, match=r"phone: expected an adb server at 127.0.0.1:1, got .*; try: adb start-server"
    ):
        await run(Adb("phone", port=1), ["true"])
    with pytest.raises(Absent, match=r"expected the device nobody, got .*not found"):
        await run(Adb("phone", "nobody", port=one_server.port), ["true"])
    with pytest.raises(Absent, match="no devices"):
        await Adb("phone", port=one_server.port).push(one_path(tmp_path), "/tmp/x")
    with pytest.raises(Absent, match=r"expected to connect to 127.0.0.1:1, got .failed"):
        await run(Adb("phone", "127.0.0.1:1", port=one_server.port), ["true"])
    async with playing() as (_, place), playing() as (_, other):
        phone = Adb("phone", place["serial"], port=one_server.port)
        await run(phone, ["true"])
        with pytest.raises(Refused, match="no such service"):
            await phone.server.service("framebuffer:")
        await run(Adb("other", other["serial"], port=one_server.port), ["true"])
        with pytest.raises(DeviceError, match=r"more than one device.*a serial of `adb devices`"):
            await run(Adb("phone", port=one_server.port), ["true"])


def one_path(folder):
    (folder / "x").write_bytes(b"x")
    return folder / "x"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", Unauthorized), ("device offline", Offline),
        ("device 'x' not found", Absent), ("no devices/emulators found", Absent), ("closed", Refused),
        ("more than one device/emulator", DeviceError), ("device still connecting", Offline), ("what", DeviceError),
    ],
)  # fmt: skip
def test_a_servers_refusals_are_told_apart(said, kind):
    assert type(refusal("phone", "x", said)) is kind


async def test_devices_are_listed_as_they_come_and_go(one_server):
    async with playing() as (_, place):
        listed = devices(port=one_server.port)
        with trio.fail_after(20):
            assert await anext(listed) == {}
            await one_server("connect", place["serial"])
            async for seen in listed:
                if seen == {place["serial"]: "device"}:
                    break
            await one_server("disconnect", place["serial"])
            async for seen in listed:
                if not seen:
                    break
        await listed.aclose()


async def test_a_server_that_talks_nonsense_or_nothing_is_an_error(monkeypatch):
    answers = [b"HTTP/1.1 400", b"OKAY0004", b""]

    async def serve(stream):
        await stream.receive_some(100)
        await stream.send_all(answers.pop(0))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        phone = Adb("phone", port=listener.socket.getsockname()[1])
        for said in ("expected OKAY or FAIL .* got b'HTTP'", "got the end of the connection", "got the end"):
            with pytest.raises(DeviceError, match=said):
                await run(phone, ["true"])
        nursery.cancel_scope.cancel()


pieces = st.builds(Packet, st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50))


@given(st.lists(pieces, max_size=6), st.integers(0, 255), st.integers(1, 20))
def test_packets_are_heard_in_pieces_of_any_size(said, status, step):
    want = [*said, Packet(EXIT, bytes([status]))]
    data = b"".join(framed(*packet) for packet in want)
    packets = Packets()
    got = [packet for at in range(0, len(data), step) for packet in packets.feed(data[at : at + step])]
    assert got == want


@pytest.mark.parametrize(
    "junk", [b"hello world", struct.pack("<BI", 1, 1 << 30), struct.pack("<BI", 3, 2) + b"xx"]
)
def test_what_no_shell_says_is_an_error(junk):
    with pytest.raises(DeviceError, match="expected a packet of adb's shell protocol"):
        list(Packets().feed(junk))


@asynccontextmanager
async def drifting(**fields):
    """A phone whose wall clock is 37 ms ahead, and 80 ppm fast; the gauge is quick."""
    if shutil.which("faketime") is None:
        pytest.skip("expected faketime: apt-get install faketime")
    async with playing("rate:80", load="square:1W,3W,400ms", ahead_ms=37, gauge_s=0.02, **fields) as played:
        yield played


@pytest.mark.realtime
async def test_a_sensors_rows_come_at_100_hz_on_the_phones_clock_and_over_a_dropped_link(
    one_server, record_property
):
    keep = Keep()
    async with drifting() as (emulated, place):
        phone = Adb("phone", place["serial"], port=one_server.port)
        sampled = Sampled(Battery(hz=100, root=place["root"], jitter=False), phone)

        class Story:
            async def collect(self, out):
                while len(keep.rows("it.battery")) < 300:
                    await out.flushing()
                emulated.unplug(0.2)
                while not keep.rows("run.gaps"):
                    await out.flushing()
                count = len(keep.rows("it.battery"))
                while len(keep.rows("it.battery")) < count + 50:
                    await out.flushing()

        with trio.fail_after(60):
            ending = await record(
                {"it": sampled}, [keep], {"story": Story()}, devices={"it": "phone"}, flush_every=0.01
            )
    assert (ending.reason, ending.error) == ("workloads ended", None)
    rows = keep.rows("it.battery")
    assert {round(row["volts"] * row["amps"], 2) for row in rows} == {1.0, 3.0}
    assert {row["epoch"] for row in rows} == {0}
    assert any("end of the stream" in gap["reason"] for gap in keep.rows("run.gaps"))
    ticks = np.array([row["tick"] for row in rows], np.int64)
    steps = np.diff(ticks[:300])
    record_property("missed", missed := int((np.round(steps / 1e4) - 1).clip(0).sum()))
    print(f"{missed} of {missed + 300} ticks missed; steps {steps.mean():.1f} +- {steps.std():.1f} us")
    maps = fit(keep.table("run.readings").cast(READINGS.schema))
    wall = [row for row in keep.rows("run.readings") if row["clock_of"] == "host.realtime"]
    middle = (wall[0]["not_before"] + wall[0]["not_after"]) / 2
    began = emulated.began
    for tick in ticks[[0, 100, 299, -1]]:
        host = maps.to_host("phone.realtime", 0, np.array([tick], np.int64))
        low, high = maps.bound("phone.realtime", 0, host)
        ours = wall[0]["count"] + host[0] - middle  # what our own wall clock said then
        ahead = tick * 1000 - ours
        true = 37e6 + 80e-6 * (host[0] - began)  # it was switched on a little before
        print(
            f"ahead by {ahead / 1e6:.3f} ms, true {true / 1e6:.3f}, bound {low[0] / 1e6:.3f} .. {high[0] / 1e6:.3f}"
        )
        assert low[0] - 2e4 <= ahead - true <= high[0] + 2e4

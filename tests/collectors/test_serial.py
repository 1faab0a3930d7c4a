"""The serial layer on real ptys: blocks, unplug, stale data, a second opener, cancellation, and what it costs."""

from __future__ import annotations

import os

import pytest
import serial
import trio
import trio.testing
from serial.tools import list_ports, list_ports_common

from melt_stream.collectors import _serial
from melt_stream.emulators._pty import plugged_in
from melt_stream.errors import DeviceError, Transient


async def test_what_is_sent_arrives_whole_and_in_order():
    sent = os.urandom(200_000)
    async with plugged_in() as line, _serial.open_port(line.path) as port, trio.open_nursery() as nursery:
        nursery.start_soon(line.write, sent)
        got = b""
        while len(got) < len(sent):
            block = await port.read(patience_s=5)
            assert block.arrival <= port.now()
            got += block.data
        assert got == sent


async def test_what_we_send_reaches_the_instrument():
    async with plugged_in() as line, _serial.open_port(line.path) as port:
        await port.write(b"\x03\x01\x00\x00\x04")
        assert await line.read() == b"\x03\x01\x00\x00\x04"


async def test_silence_is_an_error_that_asking_again_may_cure():
    async with plugged_in() as line, _serial.open_port(line.path) as port:
        with pytest.raises(Transient, match=r"expected bytes within 0\.05 s, got none"):
            await port.read(patience_s=0.05)


@pytest.mark.parametrize("reading", [True, False])
async def test_unplugging_is_told(reading):
    async with plugged_in() as line, _serial.open_port(line.path) as port:
        with pytest.RaisesGroup(pytest.RaisesExc(Transient, match="unplugged")):
            async with trio.open_nursery() as nursery:
                if reading:
                    nursery.start_soon(port.read, 5.0)
                    await trio.testing.wait_all_tasks_blocked(0.02)
                    line.unplug()
                else:
                    line.unplug()
                    await port.read(5.0)


async def test_stale_data_is_thrown_away_until_it_is_quiet():
    async with plugged_in() as line, _serial.open_port(line.path) as port, trio.open_nursery() as nursery:
        await line.write(b"old" * 1000)

        async def goes_on():
            for _ in range(5):
                await trio.sleep(0.02)
                await line.write(b"older")

        nursery.start_soon(goes_on)
        assert await port.drain(quiet_s=0.2) == 3025
        await line.write(b"new")
        assert (await port.read()).data == b"new"


async def test_an_instrument_that_never_stops_is_told():
    async with plugged_in() as line, _serial.open_port(line.path) as port, trio.open_nursery() as nursery:

        async def for_ever():
            while True:
                await line.write(b"x" * 100)
                await trio.sleep(0.005)

        nursery.start_soon(for_ever)
        with pytest.raises(DeviceError, match="expected silence after the stop command"):
            await port.drain(quiet_s=0.1, limit_s=0.3)
        nursery.cancel_scope.cancel()


async def test_a_second_opener_is_told_who_has_the_port():
    async with plugged_in() as line, _serial.open_port(line.path):
        with pytest.raises(DeviceError, match="another program has it open"):
            async with _serial.open_port(line.path):
                pass


async def test_a_port_that_is_not_there_may_be_plugged_in(tmp_path):
    with pytest.raises(Transient, match="is it plugged in"):
        async with _serial.open_port(str(tmp_path / "ttyACM0")):
            pass


async def test_what_is_no_serial_port_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DeviceError, match="expected a serial port") as caught:
        async with _serial.open_port(str(tmp_path / "file")):
            pass
    assert not isinstance(caught.value, Transient)


async def test_waiting_can_be_cancelled():
    async with plugged_in() as line, _serial.open_port(line.path) as port:
        with trio.move_on_after(0.02) as scope:
            await port.read()
        assert scope.cancelled_caught


@pytest.fixture
def usb(monkeypatch):
    """A machine with two such instruments: pyserial's list is the seam, since no USB bus is here."""

    def port(device, location):
        info = list_ports_common.ListPortInfo(device)
        info.vid, info.pid, info.product, info.location = 0x1915, 0xC00A, "PPK2", location
        return info

    ports = [port("/dev/ttyACM1", "1-2:1.1"), port("/dev/ttyACM0", "1-1:1.1")]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    return ports


def test_ports_are_found_by_usb_ids(usb):
    ids = {(0x1915, 0xC00A)}
    assert [one.path for one in _serial.found(ids)] == ["/dev/ttyACM0", "/dev/ttyACM1"]
    assert not _serial.found({(1, 2)})
    assert not _serial.found(ids, "Monsoon")
    with pytest.raises(
        DeviceError, match=r"expected one PPK2 on USB, got /dev/ttyACM0 \(1-1:1\.1\), /dev/ttyACM1"
    ):
        _serial.the_port("PPK2", ids)
    assert _serial.the_port("PPK2", ids, "/dev/other") == "/dev/other"
    usb.pop()
    assert _serial.the_port("PPK2", ids) == "/dev/ttyACM1"


def test_doctor_tells_what_is_missing(usb, tmp_path):
    ids = {(0x1915, 0xC00A)}
    assert not _serial.health("meter", {(1, 2)}).ok
    assert "0001:0002" in _serial.health("meter", {(1, 2)}).what
    assert "is not there" in _serial.health("PPK2", ids, str(tmp_path / "none")).what
    (tmp_path / "there").touch()
    assert _serial.health("PPK2", ids, str(tmp_path / "there")).ok


async def test_pyserial_itself_sees_the_same_port():
    async with plugged_in() as line:
        with serial.Serial(line.path, timeout=1) as client:
            client.write(b"ask")
            assert await line.read() == b"ask"
            await line.write(b"answer")
            assert client.read(6) == b"answer"

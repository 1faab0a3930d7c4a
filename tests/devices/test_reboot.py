"""Devices that begin another boot: told apart from a link that only ended, and a new epoch of their clocks."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import pytest
import trio

from melt_stream.collectors.hwmon import Hwmon
from melt_stream.devices import Gone, Local, Place, Rebooted, Sampled
from melt_stream.devices.adb import Adb
from melt_stream.emulators.jetson import Jetson
from melt_stream.engine import record
from melt_stream.errors import DeviceError
from melt_stream.testing import Keep
from tests.emulators.board import board, needed, reached
from tests.emulators.playing_android import WHEELS, playing, serving

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="expected root: a boot id of its own needs a namespace"
)


@asynccontextmanager
async def phone():
    with serving(WHEELS) as server:
        async with playing() as (_, place):
            yield Place(Adb("phone", place["serial"], port=server.port))


@asynccontextmanager
async def jetson():
    async with board() as place:
        yield Place(reached(place))


@as_root
@needed
@pytest.mark.parametrize("device", [phone, jetson])
async def test_a_reboot_that_we_ask_for_is_a_new_epoch_and_what_ran_there_is_gone(device):
    with trio.fail_after(60):
        async with device() as place:
            assert await place.epoch() == 0
            async with place.device.channel("echo begun; exec sleep 60") as channel:
                assert await channel.receive() == b"begun\n"
                assert await place.reboot(30) == 1
                with pytest.raises(Gone) as lost:
                    await channel.status()
            place.boots.ids.pop()  # as whoever asked before it
            why = await place.why(lost.value, 30)
            assert isinstance(why, Rebooted)
            assert str(why) == f"{lost.value}; it has begun another boot"
            assert await place.why(lost.value, 30) is lost.value


async def test_a_link_that_ends_is_not_a_reboot_and_this_machine_is_not_rebooted():
    place = Place(Local("board"))
    gone = Gone("the cable")
    assert await place.why(gone) is gone  # nobody had asked before
    assert await place.why(gone) is gone
    with pytest.raises(DeviceError, match="board: expected a device that is not this machine"):
        await place.reboot()


@needed
async def test_a_board_that_we_may_not_start_anew_says_so():
    emulated = Jetson()
    async with board(emulated) as where:
        emulated.machine.root.joinpath("reboot").chmod(0o700)  # not its user's
        with (
            trio.fail_after(30),
            pytest.raises(DeviceError, match=r"(?s)expected to start it anew, got: .*; try: root, or a sudo"),
        ):
            await reached(where).reboot()


async def test_a_device_that_does_not_come_back_is_gone():
    class Deaf(Local):
        async def reboot(self):
            pass

    with pytest.raises(Gone, match=r"board: expected another boot within 0.2 s, got none"):
        await Place(Deaf("board")).reboot(0.2)


@as_root
@needed
async def test_the_gap_of_a_recording_says_that_the_device_rebooted():
    keep, emulated = Keep(), Jetson()

    class Story:
        async def collect(self, out):
            await self.more(out, 20)
            await place.device.reboot()
            await self.more(out, 20)

        async def more(self, out, rows):
            count = len(keep.rows("it.supply")) + rows
            while len(keep.rows("it.supply")) < count:
                await out.flushing()

    async with board(emulated) as where:
        place = Place(reached(where))
        sampled = Sampled(Hwmon(hz=50), place.device, place.boots)
        with trio.fail_after(60):
            ending = await record(
                {"it": sampled}, [keep], {"story": Story()}, devices={"it": "orin"}, flush_every=0.01
            )
    assert ending.error is None
    assert sorted({row["epoch"] for row in keep.rows("it.supply")}) == [0, 1]
    reasons = [row["reason"] for row in keep.rows("run.gaps") if row["stream"] == "supply"]
    assert any(r.startswith("Gone: ") and r.endswith("; the device has begun another boot") for r in reasons)
    assert {row["epoch_of"] for row in keep.rows("run.readings") if row["clock_of"] == "orin.realtime"} == {
        0,
        1,
    }

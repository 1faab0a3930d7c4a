"""What runs on a device: its lines by the device's clock, which readings from both sides tie to ours."""

from __future__ import annotations

import os
import shutil
from contextlib import aclosing
from dataclasses import dataclass

import pytest
import trio

from melt_stream.devices import Gone, Local, Place
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Hub

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")

SHELLS = [shell for shell in ("bash", "mksh") if shutil.which(shell)]


@dataclass
class In(Place):
    """This machine, in a shell of our choice."""

    using: str = "bash"

    async def shell(self) -> str:
        return self.using


async def said(place, command):
    async with aclosing(place.lines(Hub().outlet("it"), command)) as lines:
        return [line async for line in lines]


@pytest.mark.parametrize("shell", SHELLS)
async def test_lines_carry_the_devices_time_and_ours(shell):
    out = Hub().outlet("it")
    before = out.now()
    lines = await said(In(Local("board"), using=shell), ["printf", "%s\\n", "one", " two  \\n", "ü -n", ""])
    assert [line.text for line in lines] == ["one", " two  \\n", "ü -n", ""]
    ticks = [line.tick for line in lines]
    assert ticks == sorted(ticks)
    assert all(before <= line.arrival <= out.now() for line in lines)


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_last_line_without_an_end_is_a_line_and_no_output_is_none(shell):
    place = In(Local("board"), using=shell)
    assert [line.text for line in await said(place, ["printf", "x"])] == ["x"]
    assert await said(place, ["true"]) == []


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_command_that_fails_says_so_after_its_lines(shell):
    with pytest.raises(DeviceError, match=r"board: expected .* to end well, got exit status 3: oh"):
        await said(In(Local("board"), using=shell), ["sh", "-c", "echo x; echo oh >&2; exit 3"])


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_command_whose_stdin_ends_is_killed(shell, tmp_path):
    place, pid = In(Local("board"), using=shell), tmp_path / "pid"
    with trio.fail_after(20), pytest.raises(DeviceError, match=r"exit status (143|-15)"):
        await hung_up_on(place, ["sh", "-c", f"echo $$ > {pid}; echo on; exec sleep 1000"])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def hung_up_on(place, command):
    """Hang up at the command's first line, and hear it out."""
    hanging = Hanging(place)
    async with aclosing(hanging.lines(Hub().outlet("it"), command)) as lines:
        async for _ in lines:
            await hanging.hang_up()


class Hanging(Place):
    """One whose channel's stdin we can end."""

    def __init__(self, place):
        super().__init__(self)
        self.name, self._place = place.device.name, place

    async def shell(self):
        return await self._place.shell()

    def channel(self, command):
        return self._held(self._place.device.channel(command))

    def _held(self, opened):
        outer = self

        class Held:
            async def __aenter__(self):
                outer.held = await opened.__aenter__()
                return outer.held

            async def __aexit__(self, *args):
                return await opened.__aexit__(*args)

        return Held()

    async def hang_up(self):
        await self.held.close_stdin()


async def test_the_clock_is_tied_while_the_body_runs():
    hub = Hub()
    out = hub.outlet("it")
    place = Place(Local("board"))
    with trio.fail_after(30):
        async with place.clocked(out) as epoch:
            assert epoch == 0
            async for line in place.lines(out, ["echo", "x"]):
                out.row(EVENTS, kind="mark", name=line.text)
    tables = {batch.source.key: batch.data for batch in hub.take()}
    rows = tables["run.readings"].to_pylist()
    assert {(row["clock_of"], row["kind"]) for row in rows} == {("board.realtime", "round_trip")}
    assert len(rows) >= 8  # the burst at the end


async def test_a_link_that_ends_ends_the_body():
    class Dead(Place):
        async def shell(self):
            return "false"

    with trio.fail_after(30), pytest.raises(ExceptionGroup) as caught:
        async with Dead(Local("board")).clocked(Hub().outlet("it")):
            await trio.sleep_forever()
    assert caught.group_contains(Gone)


@pytest.mark.parametrize("shell", SHELLS)
async def test_output_is_bytes_what_is_given_is_its_stdin_and_it_stops_in_order(shell):
    place = In(Local("board"), using=shell)
    script = r"trap 'printf \\000bye; exit 3' TERM; cat; while :; do sleep 0.01; done"
    with trio.fail_after(20):
        async with place.output(["bash", "-c", script], "it's\ngiven") as channel:
            said = b""
            while said != b"it's\ngiven\n":
                said += await channel.receive()
            await channel.close_stdin()
            while data := await channel.receive():
                said += data
            assert said == b"it's\ngiven\n\0bye"
            assert await channel.status() == 3


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_command_that_reads_nothing_of_what_it_is_given_ends_as_it_does(shell):
    place = In(Local("board"), using=shell)
    with trio.fail_after(20):
        async with place.output(["printf", "x"], "y" * 100_000) as channel:
            assert await channel.receive() == b"x"
            assert await channel.status() == 0

"""What runs on a device: its lines by the device's clock, which readings from both sides tie to ours."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import aclosing

import pytest
import trio

from melt_stream.devices import Boots, Gone, Local, Place
from melt_stream.devices.runner import Runner
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Hub

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")

RUNNERS = [
    Runner(kind, words)
    for kind, *words in (
        ("shell", "bash"), ("shell", "mksh"), ("python3", sys.executable), ("sleep", "busybox", "sh"), ("date", "dash"),
        ("uptime", "dash"),
    )
    if shutil.which(words[0])
]  # fmt: skip
every = pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: f"{runner.kind} {runner.words[0]}")


def by(runner):
    """This machine, by a runner of our choice."""
    return Place(Local("board"), Boots(runner=runner))


async def said(place, command):
    async with aclosing(place.lines(Hub().outlet("it"), command)) as lines:
        return [line async for line in lines]


@every
async def test_lines_carry_the_devices_time_and_ours(runner):
    out = Hub().outlet("it")
    before = out.now()
    lines = await said(by(runner), ["printf", "%s\\n", "one", " two  \\n", "ü -n", ""])
    assert [line.text for line in lines] == ["one", " two  \\n", "ü -n", ""]
    ticks = [line.tick for line in lines]
    assert ticks == sorted(ticks)
    assert all(before <= line.arrival <= out.now() for line in lines)


@every
async def test_a_last_line_without_an_end_is_a_line_and_no_output_is_none(runner):
    place = by(runner)
    assert [line.text for line in await said(place, ["printf", "x"])] == ["x"]
    assert await said(place, ["true"]) == []


@every
async def test_a_command_that_fails_says_so_after_its_lines(runner):
    with pytest.raises(DeviceError, match=r"board: expected .* to end well, got exit status 3: oh"):
        await said(by(runner), ["sh", "-c", "echo x; echo oh >&2; exit 3"])


@every
async def test_a_command_whose_stdin_ends_is_killed(runner, tmp_path):
    place, pid = by(runner), tmp_path / "pid"
    with trio.fail_after(20), pytest.raises(DeviceError, match=r"exit status (143|-15): "):
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

    async def runner(self):
        return await self._place.runner()

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


@every
async def test_the_clock_is_tied_while_the_body_runs(runner):
    hub = Hub()
    out = hub.outlet("it")
    place = by(runner)
    with trio.fail_after(30):
        async with place.clocked(out) as epoch:
            assert epoch == 0
            async for line in place.lines(out, ["echo", "x"]):
                out.row(EVENTS, kind="mark", name=line.text)
    tables = {batch.source.key: batch.data for batch in hub.take()}
    rows = tables["run.readings"].to_pylist()
    assert {(row["clock_of"], row["kind"]) for row in rows} == {(f"board.{runner.base}", "round_trip")}
    assert {row["resolution"] for row in rows} == {runner.resolution}
    assert place.clock.name == f"board.{runner.base}"
    assert len(rows) >= 8  # the burst at the end


async def test_a_link_that_ends_ends_the_body():
    with trio.fail_after(30), pytest.raises(ExceptionGroup) as caught:
        async with by(Runner("shell", ("false",))).clocked(Hub().outlet("it")):
            await trio.sleep_forever()
    assert caught.group_contains(Gone)


@every
async def test_output_is_bytes_what_is_given_is_its_stdin_and_it_stops_in_order(runner):
    place = by(runner)
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


@every
async def test_a_command_that_reads_nothing_of_what_it_is_given_ends_as_it_does(runner):
    place = by(runner)
    with trio.fail_after(20):
        async with place.output(["printf", "x"], "y" * 100_000) as channel:
            assert await channel.receive() == b"x"
            assert await channel.status() == 0

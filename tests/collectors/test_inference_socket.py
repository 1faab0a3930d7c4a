"""An app that pushes its events: over real sockets, by its own clock, in whatever way it misbehaves."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.clocks import fit
from melt_stream.clock import monotonic
from melt_stream.collectors._socket_said import KINDS, Unfit, parse
from melt_stream.collectors.inference_socket import InferenceSocket
from melt_stream.devices import Place
from melt_stream.devices.adb import Adb
from melt_stream.engine import record
from melt_stream.errors import ConfigError
from melt_stream.internal import READINGS
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting
from tests.emulators.playing_android import ADBS, playing, serving

AHEAD_NS = 37_000_000_000_000


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class App:
    """One that follows the protocol; its clock is hours ahead."""

    def __init__(self, wire):
        self.wire, self.ahead, self.errors, self.asked, self.bye = wire, AHEAD_NS, [], 0, trio.Event()
        self.mute, self._one_at_a_time = False, trio.Lock()
        self._more = trio.Event()

    def now(self):
        return monotonic() + self.ahead

    async def say(self, *raw, **told):
        async with self._one_at_a_time:
            await self.wire.send_all(raw[0] if raw else json.dumps(told).encode() + b"\n")

    async def answer(self):
        """Answer until the connection ends."""
        rest = b""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.wire.receive_some(4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in map(json.loads, lines):
                    await self._hear(line)

    async def _hear(self, line):
        if "clock" in line:
            self.asked += 1
            if not self.mute:
                await self.say(clock=line["clock"], t=self.now())
        elif "error" in line:
            self.errors.append(line["error"])
        else:
            self.bye.set()
        self._more.set()
        self._more = trio.Event()

    async def until(self, enough):
        with trio.fail_after(20):
            while not enough():
                await self._more.wait()


@asynccontextmanager
async def app_at(port):
    wire = None
    with trio.fail_after(20):
        while wire is None:
            try:
                wire = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
    async with wire, trio.open_nursery() as nursery:
        app = App(wire)
        nursery.start_soon(app.answer)
        yield app
        nursery.cancel_scope.cancel()


def listening(**fields):
    port = free_port()
    return port, InferenceSocket(listen=f"127.0.0.1:{port}", **fields)


async def test_as_a_workload_it_ends_when_the_app_is_done_and_its_clock_is_tied_from_both_sides():
    port, workload = listening()
    keep, truth = Keep(), []

    async def play():
        async with app_at(port) as app:
            await app.say(hello="it", facts={"model": "tiny"})
            for k, kind in enumerate(("request_sent", "prefill_start", "token", "token", "request_end")):
                truth.append(monotonic())
                more = {"index": k - 2, "count": 1, "text": "ü"} if kind == "token" else {}
                await app.say(event=kind, t=truth[-1] + AHEAD_NS, request="r", **more)
            await app.say(done=True)
            with trio.fail_after(20):
                await app.bye.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        ending = await record({}, [keep], {"it": workload})
    assert ending.reason == "workloads ended"
    rows = keep.rows("it.app")
    assert [row["kind"] for row in rows] == ["request_sent", "prefill_start", "token", "token", "request_end"]
    assert {row["request"] for row in rows} == {rows[0]["request"]}
    found = fit(keep.table("run.readings"), [("it.app", 0)])
    assert keep.table("run.readings").schema.names == READINGS.schema.names
    clock = found.of("it.app")
    assert clock.kind == "two_way"
    ticks = keep.table("it.app")["tick"].to_numpy()
    low, high = found.bound("it.app", 0, ticks * 0 + truth[0])
    error = truth - found.to_host("it.app", 0, ticks)
    assert (low <= error).all()
    assert (error <= high).all()
    assert ("model", '"tiny"') in [(row["name"], row["value"]) for row in keep.rows("run.facts")]


async def test_lines_that_are_none_are_gaps_and_told_to_the_app():
    port, collector = listening()
    wrong = [
        b"junk\n", b"[1]\n", b'{"event": "token"}\n', b'{"event": "tokn", "t": 1}\n', b'{"event": "token", "t": "1"}\n',
        b'{"event": "token", "t": 1, "idx": 3}\n', b'{"event": "token", "t": -1}\n', b'{"clock": 99, "t": 1}\n', b"\xff\xfe\n",
        b"[" * 60000 + b"\n", b"x" * 200_000 + b"\n", b'{"event": "token", "done": true}\n', b'{"hello": "again"}\n',
    ]  # fmt: skip
    async with collecting(collector) as watched, app_at(port) as app:
        await app.say(b'{"hello": "it"}\n' + wrong[-1])  # at once
        await app.say(event="mark", t=app.now(), name="first")
        for line in wrong[:-1]:
            await app.say(line)
        await app.say(event="mark", t=app.now(), name="last")
        await watched.until(lambda: len(watched.of("app")) == 2)
        await watched.until(lambda: len(watched.gaps("app")) == len(wrong))
        await app.until(lambda: len(app.errors) == len(wrong))
    assert [row["name"] for row in watched.of("app")] == ["first", "last"]
    reasons = " ".join(gap["reason"] for gap in watched.gaps("app"))
    for word in ("idx: Extra inputs", "got one that is too long", "got one to 99", "t: Field required"):
        assert word in reasons


async def test_an_app_that_comes_back_is_another_epoch_and_a_second_one_is_refused():
    port, collector = listening()
    async with collecting(collector) as watched:
        async with app_at(port) as first:
            await first.say(hello="it")
            await first.say(event="request_sent", t=first.now(), request=1)
            await watched.until(lambda: watched.of("app"))
            async with app_at(port) as second:
                with trio.fail_after(20):
                    await second.answer()  # until it is hung up on
        async with app_at(port) as again:
            again.ahead = 0
            await again.say(hello="it")
            await again.say(event="token", t=again.now(), request=1, index=0, count=1)
            await watched.until(lambda: len(watched.of("app")) == 2)
    assert [(row["epoch"], row["request"]) for row in watched.of("app")] == [(0, 1), (1, 1)]
    assert "the connection ended, and the app did not say that it is done" in watched.gaps("app")[0]["reason"]
    assert [json.loads(row["detail"])["error"] for row in watched.of("events")] == [
        "expected one app at a time, got a second one"
    ]


async def test_a_clock_that_is_set_back_begins_another_epoch():
    port, collector = listening()
    async with collecting(collector) as watched, app_at(port) as app:
        await app.say(hello="it")
        await app.say(event="mark", t=app.now())
        await app.until(lambda: app.asked >= 8)
        app.ahead -= 5_000_000_000
        await app.say(event="mark", t=app.now())
        await watched.until(lambda: len(watched.of("app")) == 2)
        app.ahead -= 1_000_000  # the answers alone show it
        await app.until(lambda: app.asked >= 20)
        await app.say(event="mark", t=app.now())
        await watched.until(lambda: len(watched.of("app")) == 3)
    epochs = [row["epoch"] for row in watched.of("app")]
    assert epochs[:2] == [0, 1]
    assert epochs[2] >= 1
    assert "set back" in watched.gaps("app")[0]["reason"]


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n", b'{"event": "mark", "t": 1}\n', b'{"clock": 1, "t": 1}\n']
)
async def test_who_does_not_say_hello_is_sent_away(first):
    port, collector = listening()
    async with collecting(collector) as watched:
        async with app_at(port) as stranger:
            await stranger.say(first)
            await stranger.until(lambda: stranger.errors)
        await watched.until(lambda: watched.of("events"))
        async with app_at(port) as app:
            await app.say(hello="it", tick_ns=1000.0)
            await app.say(event="mark", t=7)
            await watched.until(lambda: watched.of("app"))
        async with app_at(port) as other:
            await other.say(hello="it", tick_ns=1.0)
            await other.until(lambda: other.errors)
        assert "expected the clock of before (1000 ns a tick" in other.errors[0]


async def test_a_dead_connection_is_told():
    port, collector = listening(patience_s=0.3)
    async with collecting(collector) as watched, app_at(port) as app:
        app.mute = True
        await app.say(hello="it")
        await watched.until(watched.gaps)
    assert "nothing came for 0.3 s, not even its time" in watched.gaps()[0]["reason"]


async def test_an_app_that_never_comes_is_missed():
    _, collector = listening(wait_s=0.05)
    ending = await record({}, [Keep()], {"it": collector})
    assert "expected the app's hello within 0.05 s, got none" in str(ending.error)


@pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
async def test_an_app_that_listens_on_a_phone_is_connected_to_over_a_real_adb_server():
    done = trio.Event()

    async def serve(wire):
        app = App(wire)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(app.answer)
            await app.say(hello="it")
            await app.say(event="mark", t=app.now())
            await app.say(done=True)
            await app.bye.wait()
            done.set()
            nursery.cancel_scope.cancel()

    port = free_port()

    async def late():
        await trio.sleep(0.3)
        await trio.serve_tcp(serve, port, host="127.0.0.1")

    with serving(ADBS[0]) as server:
        async with playing() as (_, it), trio.open_nursery() as nursery:
            nursery.start_soon(late)
            workload = InferenceSocket(connect=port).on(Place(Adb("phone", it["serial"], port=server.port)))
            keep = Keep()
            with trio.fail_after(60):
                ending = await record({}, [keep], {"it": workload})
            nursery.cancel_scope.cancel()
    assert ending.error is None
    assert done.is_set()
    assert [row["kind"] for row in keep.rows("it.app")] == ["mark"]


def test_one_end_is_needed():
    for fields in ({}, {"listen": "127.0.0.1:1", "connect": 2}, {"listen": "nowhere"}):
        with pytest.raises(ConfigError, match="expected"):
            InferenceSocket(**fields)


PIECES = st.sampled_from(
    [
        b'{"event": "token", "t": 1',
        b"}",
        b', "index": 1',
        b'"done"',
        b": true",
        b'{"clock": 1',
        b'{"hello": "x"',
        b"NaN",
        b"\x00",
    ]
)


@settings(deadline=None)  # of a busy machine
@given(st.lists(PIECES | st.binary(max_size=6), max_size=6).map(b"".join))
def test_whatever_a_line_is_it_is_understood_or_unfit(line):
    with suppress(Unfit):
        assert type(parse(line)) in KINDS.values()

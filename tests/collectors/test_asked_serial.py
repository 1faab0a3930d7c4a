"""Asking over a serial port, on real ptys: no byte of another answer is taken for this one's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from melt_stream.collectors._asked_serial import AskedPort
from melt_stream.emulators._pty import plugged_in
from melt_stream.errors import DeviceError, Transient

in_thread = trio.to_thread.run_sync


@asynccontextmanager
async def asked(timeout_s=0.3):
    async with plugged_in() as line:
        port = AskedPort(line.path, 115200, timeout_s)
        port.open()
        yield line, port
        port.end()


async def answering(line, *answers):
    for answer in answers:
        await line.read()
        await line.write(answer)


async def test_an_answer_of_its_length():
    async with asked(2.0) as (line, port), trio.open_nursery() as nursery:
        nursery.start_soon(answering, line, b"abcd", b"efgh")
        assert await in_thread(port.ask, b"?", 4) == b"abcd"
        assert await in_thread(port.ask, b"?", 4) == b"efgh"


async def test_what_nobody_asked_for_is_not_taken_for_an_answer():
    async with asked() as (line, port), trio.open_nursery() as nursery:
        nursery.start_soon(answering, line, b"abcd")
        await line.write(b"late")
        with pytest.raises(Transient, match=r"expected silence before b'\?', got 4 bytes"):
            await in_thread(port.ask, b"?", 4)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("answer", "said"), [(b"abc", "expected 4 bytes in answer"), (b"abcdef", "expected 4 bytes, got 6")]
)
async def test_a_short_answer_and_a_long_one(answer, said):
    async with asked() as (line, port), trio.open_nursery() as nursery:
        nursery.start_soon(answering, line, answer)
        with pytest.raises(Transient, match=said):
            await in_thread(port.ask, b"?", 4)


async def test_what_was_asked_before_is_answered_before():
    async with asked(2.0) as (line, port), trio.open_nursery() as nursery:
        nursery.start_soon(answering, line, b"a late answer, and its end" + b"firm")
        assert await in_thread(port.until, b"query", (b"firm", b"boot")) == b"firm"
        nursery.start_soon(answering, line, b"abcd")
        assert await in_thread(port.ask, b"?", 4) == b"abcd"


async def test_another_instrument_does_not_say_it():
    async with asked() as (line, port), trio.open_nursery() as nursery:
        nursery.start_soon(answering, line, b"ERR 13")
        with pytest.raises(Transient, match="expected b'firm' in answer to b'query', got b'R 13'"):
            await in_thread(port.until, b"query", (b"firm",))


async def test_a_line_settles_or_is_said_not_to():
    async with asked() as (line, port), trio.open_nursery() as nursery:
        await line.write(b"old" * 1000)
        await in_thread(port.settle, 0.1)
        nursery.start_soon(answering, line, b"abcd")
        assert await in_thread(port.ask, b"?", 4) == b"abcd"

        async def for_ever():
            while True:
                await line.write(b"x" * 100)
                await trio.sleep(0.005)

        nursery.start_soon(for_ever)
        with pytest.raises(DeviceError, match=r"expected silence, got bytes for 0\.3 s"):
            await in_thread(partial(port.settle, 0.2, limit_s=0.3))
        nursery.cancel_scope.cancel()


async def test_one_that_waits_is_let_go_and_stays_closed():
    async with asked(60.0) as (_, port):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def ask():
                    with pytest.raises(Transient):
                        await in_thread(port.ask, b"?", 4)

                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked(0.05)
                port.end()
        port.open()  # as a thread may that was left behind
        assert not port.is_open

"""A llama-server on a device: put there, started, watched; and servers that run there already."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from melt_stream.collectors._llama_deployed import free_port_there, said
from melt_stream.collectors.llama import Llama
from melt_stream.collectors.ollama import Ollama
from melt_stream.collectors.openai_sse import OpenaiSse
from melt_stream.devices import Gone, Local, Place
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import STREAM, Recorded, chunk, event, run, serving, stream, whole
from tests.collectors.test_llama import PROPS, piece, tokens


def place():
    return Place(Local("board"))


class Forwarding(Local):
    """Its ports are others here; the link can be cut, and is back as often as somebody asks."""

    def __init__(self):
        super().__init__("board")
        self.forwards = 0
        self.cut = trio.Event()

    @asynccontextmanager
    async def forward(self, port):
        self.forwards += 1
        if self.forwards == 2:
            raise Gone("board: not yet")
        self.cut = trio.Event()
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(
                partial(trio.serve_tcp, partial(self._relay, port), 0, host="127.0.0.1")
            )
            yield listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    async def _relay(self, port, stream):
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as there,
            stream,
            trio.open_nursery() as nursery,
        ):

            async def back():
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in there:
                        await stream.send_all(data)
                nursery.cancel_scope.cancel()

            async def until_cut():
                await self.cut.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            nursery.start_soon(until_cut)
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async for data in stream:
                    await there.send_all(data)
            nursery.cancel_scope.cancel()


def answers(*more):
    chat = [stream(piece("a", 1, 0.001), piece("b", 2, 20.5), piece(None, finish="length")), *more]
    return serving(health=[whole({"status": "ok"})], props=[whole(PROPS)], v1__chat__completions=chat)


async def test_a_server_that_runs_on_the_device_is_asked_through_a_forwarded_port():
    device = Forwarding()
    async with answers() as http:
        recorded = await run(Llama(url=http.url, prompts=["hello"]).on(Place(device)))
    assert device.forwards == 1
    assert len(tokens(recorded)) == 2
    assert {reading["same_rate"] for reading in recorded.readings} == {False}, "it is another machine's"


async def test_any_openai_server_and_ollama_are_reached_alike():
    text = event({"choices": [{"index": 0, "delta": {"content": "Good"}, "finish_reason": "stop"}]})
    async with serving(v1__chat__completions=[stream(text)]) as http:
        recorded = await run(OpenaiSse(f"{http.url}/v1", prompts=["hi"]).on(Place(Forwarding())))
    assert [row["index"] for row in recorded.events("token")] == [0]
    for wrong in ("http://192.168.1.2:1", "https://127.0.0.1:1"):
        with pytest.raises(
            ConfigError,
            match=r"url: expected http://127.0.0.1:PORT, a port on the loopback of the device 'board'",
        ):
            await run(Ollama("m", url=wrong).on(place()))


async def test_an_answer_that_the_link_broke_off_is_an_error_and_the_next_prompt_is_asked_when_it_is_back():
    device, halfway, hub = Forwarding(), trio.Event(), Hub()
    first = piece("a", 1, 0.001)
    chat = [[STREAM, chunk(first), halfway, None], stream(first, piece(None, finish="length"))]
    async with answers(*chat) as http, trio.open_nursery() as nursery:
        http.replies["/v1/chat/completions"].pop(0)

        async def cut_in_the_middle():
            await halfway.wait()
            device.cut.set()

        nursery.start_soon(cut_in_the_middle)
        with trio.fail_after(30):
            await Llama(url=http.url, prompts=["one", "two"]).on(Place(device)).collect(hub.outlet("w"))
    recorded = Recorded(hub)
    ended = {
        row["request"]: row["kind"]
        for row in recorded.events()
        if row["kind"] in {"request_end", "request_error"}
    }
    assert ended == {1: "request_error", 2: "request_end"}
    assert device.forwards == 3, "the second try found no link"
    assert any(row["name"].startswith("link lost: board") for row in recorded.events("mark"))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A server that is a script, and a model that is none."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")

    def made(script):
        path = tmp_path / "llama-server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {"model": str(tmp_path / "m.gguf"), "prompts": ["hello"], "start_timeout": 20.0}

    return made


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "echo loading >&2; exit 3",
            r"board: the llama.cpp server ended by itself, exit status 3; its last lines:\n  loading",
        ),
        (
            "echo loading; kill -9 $$",
            r"killed by SIGKILL: mostly for want of memory; try: .*; its last lines:\n  loading",
        ),
        ("exit 0", r"ended by itself, exit status 0; it wrote nothing"),
    ],
)
async def test_a_server_that_dies_there_is_told_with_its_status_and_last_words(fake, tmp_path, script, says):
    fields = fake(script)
    with trio.fail_after(30), pytest.raises(DeviceError, match=says):
        await run(Llama(binary=str(tmp_path / "llama-server"), **fields).on(place()))


async def test_binary_and_libraries_are_put_side_by_side_for_the_processor_there(fake, tmp_path):
    fields = fake('ls "$LD_LIBRARY_PATH"; echo "$@"; exit 7')
    (tmp_path / "libllama.so").write_bytes(b"ELF")
    binary = {"sparc": "/none", os.uname().machine: str(tmp_path / "llama-server")}
    with trio.fail_after(30), pytest.raises(DeviceError, match="exit status 7") as caught:
        await run(
            Llama(binary=binary, libraries=[str(tmp_path / "libllama.so")], args=["-fa"], **fields).on(
                place()
            )
        )
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:3]] == ["libllama.so", "llama-server"]
    assert lines[3].strip().startswith(f"-m {tmp_path}/home/.cache/melt_stream/")
    assert lines[3].endswith("-np 1 --log-prefix --log-timestamps -fa")
    with pytest.raises(
        ConfigError,
        match=rf"board: binary: expected a llama-server for {os.uname().machine}, got those for sparc",
    ):
        await run(Llama(binary={"sparc": "/none"}, **fields).on(place()))


async def test_a_server_that_is_there_is_found_by_its_name_or_said_to_be_missing(fake, tmp_path, monkeypatch):
    fields = fake("exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with trio.fail_after(30), pytest.raises(DeviceError, match="exit status 9"):
        await run(Llama(binary="on_device:llama-server", **fields).on(place()))
    with pytest.raises(DeviceError, match="board: binary: expected the program 'llama-x' there, got none"):
        await run(Llama(binary="on_device:llama-x", **fields).on(place()))


@pytest.mark.parametrize(
    "fields", [{"binary": {"x86_64": "b"}}, {"binary": "on_device:b"}, {"model": "on_device:/m"}, {"libraries": ["x"]}, {"folder": "/f"}]
)  # fmt: skip
def test_what_only_a_device_can_have_needs_one(fields):
    with pytest.raises(ConfigError, match=r"device; try: device = "):
        Llama(**fields).prepare()


def test_a_device_needs_a_server():
    with pytest.raises(
        ConfigError, match="no server for board; try: binary = a llama-server, or on_device:NAME; or url"
    ):
        Llama(model="m").on(place()).prepare()


async def test_a_port_that_somebody_has_is_not_chosen(monkeypatch):
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    taken = listeners[0].socket.getsockname()[1]
    monkeypatch.setattr("melt_stream.collectors._llama_deployed.PORTS", range(taken, taken + 2))
    assert await free_port_there(Local("board")) == taken + 1
    await listeners[0].aclose()


@pytest.mark.parametrize(("status", "words"), [(3, "exit status 3"), (143, "killed by SIGTERM"), (-15, "killed by SIGTERM"), (255, "exit status 255")])  # fmt: skip
def test_an_exit_status_in_words(status, words):
    assert said(status) == words

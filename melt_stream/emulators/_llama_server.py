"""The ``llama-server`` of an emulated device: llama.cpp's own, from the wheel ``xllamacpp``, behind a relay that sees what it is at.

Takes the arguments of a ``llama-server`` that matter here, and is run on the device: ``python -m melt_stream.emulators._llama_server``.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio

from melt_stream.collectors._llama_child import serve
from melt_stream.emulators._activity import STATES, VARIABLE

IDLE, PREFILL, DECODE = range(len(STATES))
BLOCK = 1 << 16


@dataclass
class Told:
    """What is going on, as the file has it."""

    file: int | None
    under_way: dict[int, int] = field(default_factory=dict)
    """The state of each request's connection."""

    def tell(self, connection: int, state: int) -> None:
        """Note the state of a connection."""
        self.under_way[connection] = state
        if self.file is not None:
            os.pwrite(self.file, b"%d" % max(self.under_way.values()), 0)


def main(arguments: list[str] | None = None) -> None:
    """Serve until killed."""
    options = _options(arguments)
    server = serve(
        options.model, threads=options.threads, n_ctx=options.n_ctx, n_batch=options.n_batch, slots=options.slots,
        verbosity=3,
    )  # fmt: skip
    trio.run(_relay, options, urlsplit(server.listening_address).port, _told())


def launcher(activity: Path | None) -> str:
    """Return the script ``llama-server``, which says in the file ``activity`` what it is at."""
    told = [f"{VARIABLE}={activity}"] if activity else []
    words = ["exec", "env", "PYTHONDONTWRITEBYTECODE=1", *told, sys.executable, "-m", __name__]
    return f'#!/bin/sh\n{shlex.join(words)} "$@"\n'


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("-tb", "--threads-batch", type=int)
    parser.add_argument("-c", "--ctx-size", dest="n_ctx", type=int, default=2048)
    parser.add_argument("-b", "--batch-size", dest="n_batch", type=int, default=64)
    parser.add_argument("-ub", "--ubatch-size", type=int)
    parser.add_argument("-np", "--parallel", dest="slots", type=int, default=1)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    for flag in ("--log-prefix", "--log-timestamps"):
        parser.add_argument(flag, action="store_true", help="it does so anyway")
    return parser.parse_args(arguments)


def _told() -> Told:
    """Take the file and its lock, where there is one."""
    if (path := os.environ.get(VARIABLE)) is None:
        return Told(None)
    file = os.open(path, os.O_RDWR)
    os.pwrite(file, b"0", 0)
    fcntl.flock(file, fcntl.LOCK_EX)
    return Told(file)


async def _relay(options: argparse.Namespace, port: int, told: Told) -> None:
    async with trio.open_nursery() as nursery:
        serving = partial(trio.serve_tcp, partial(_connected, port, told), options.port, host=options.host)
        await nursery.start(serving)
        sys.stderr.write(f"main: server is listening on http://{options.host}:{options.port}\n")
        sys.stderr.flush()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                os._exit(0)  # the native server's threads need no goodbye


async def _connected(port: int, told: Told, stream: trio.SocketStream) -> None:
    number = id(stream)
    try:
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as server,
            stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_up, stream, server, told, number)
            with suppress(trio.BrokenResourceError):
                await _down(stream, server, told, number)
            nursery.cancel_scope.cancel()
    finally:
        told.tell(number, IDLE)
        del told.under_way[number]


async def _up(stream: trio.SocketStream, server: trio.SocketStream, told: Told, number: int) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while data := bytes(await stream.receive_some(BLOCK)):
            if data.startswith((b"POST /v1/", b"POST /completion")):
                told.tell(number, PREFILL)
            await server.send_all(data)
        await server.aclose()  # the client left: the server stops, too


async def _down(stream: trio.SocketStream, server: trio.SocketStream, told: Told, number: int) -> None:
    with suppress(trio.ClosedResourceError):
        while data := bytes(await server.receive_some(BLOCK)):
            if b"[DONE]" in data:
                told.tell(number, IDLE)
            elif b'"predicted_n":' in data and b'"predicted_n":0' not in data:
                told.tell(number, DECODE)
            await stream.send_all(data)


if __name__ == "__main__":
    main()

"""Making plug-ins from what their ``example()`` says in plain data."""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import trio

from melt_stream.plugins import configure, load
from melt_stream.testing.trees import FakeTree


@asynccontextmanager
async def made_from_example(cls: Any, folder: Path) -> AsyncIterator[Any]:
    """Make a plug-in as its example configures it, with what it needs for the time of the body.

    ``{"kind": "files", "tree": {path: text}}`` puts the files below ``folder``, which becomes its ``root`` (or its
    ``path``, where it has no ``root``), as does ``"packed"`` with bytes (deflated, in base 85); ``{"kind": "http", "replies": {path: text}}`` answers requests for these
    paths with these texts, at the address that stands for ``{url}`` in the configuration; ``{"kind": "emulator", "emulator": name}`` plays
    that emulator, whose place fills ``{port}``, ``{host}``, ``{tcp_port}``; ``{"kind": "plain"}`` needs nothing. ``config`` are its
    fields. Raises ``ValueError`` for another kind.
    """
    example = cls.example()
    config, where = dict(example.get("config", {})), f"{cls.__name__}.example()"
    match example["kind"]:
        case "files":
            root = "root" if "root" in {field.name for field in fields(cls)} else "path"
            config[root] = str(FakeTree(folder, example.get("tree")).root)
            for path, packed in example.get("packed", {}).items():
                (folder / path).write_bytes(zlib.decompress(base64.b85decode(packed)))
            yield configure(cls, config, where)
        case "http":
            async with _answering(example["replies"]) as url:
                yield configure(cls, _filled(config, {"url": url}), where)
        case "emulator":
            async with trio.open_nursery() as nursery:
                place = await nursery.start(load("melt_stream.emulators", example["emulator"])().play)
                yield configure(cls, _filled(config, place), where)
                nursery.cancel_scope.cancel()
        case "plain":
            yield configure(cls, config, where)
        case kind:
            raise ValueError(f"{where}: expected kind 'files', 'http', 'emulator' or 'plain', got {kind!r}")


def _filled(config: dict[str, Any], place: Mapping[str, str | int]) -> dict[str, Any]:
    """Fill in ``{url}`` and the like; a value that is only one of them keeps its type."""
    return {
        key: _filled_in(value, place) if isinstance(value, str) else value for key, value in config.items()
    }


def _filled_in(value: str, place: Mapping[str, str | int]) -> str | int:
    if (name := value[1:-1]) in place and value == f"{{{name}}}":
        return place[name]
    for name, where in place.items():
        value = value.replace(f"{{{name}}}", str(where))
    return value


@asynccontextmanager
async def _answering(replies: Mapping[str, str]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(_answer, replies), 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def _answer(replies: Mapping[str, str], stream: trio.SocketStream) -> None:
    head, body = b"", b""
    while not body:  # every request here has one
        some = await stream.receive_some()
        if not some:
            return
        head += some
        body = head.partition(b"\r\n\r\n")[2]
    path = head.split()[1].decode()
    reply = replies.get(path, "").encode()
    status = b"200 OK" if path in replies else b"404 Not Found"
    kind = b"text/event-stream" if reply.startswith(b"data:") else b"application/json"
    await stream.send_all(
        b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (status, kind, len(reply), reply)
    )

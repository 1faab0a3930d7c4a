"""A real HTTP server on a real socket that answers byte for byte what a test says."""

import json
import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from melt_stream.outlet import Hub

T = TypeVar("T")
Reply = Sequence[bytes | trio.Event | None]
"""What goes out, each piece only when the client has read the one before; an event is set instead, and
None is silence. At the end the line is closed."""

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked answer."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def stream(*pieces: bytes) -> list[bytes]:
    """A complete stream of events: each piece is a read of its own, ``[DONE]`` comes last."""
    return [STREAM, *map(chunk, pieces), chunk(event("[DONE]")) + END]


def whole(body: object = "", status: int = 200, content_type: str = "application/json") -> list[bytes]:
    """A plain answer."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Because\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n\r\n"
    return [head.encode() + data]


class Scripted:
    """Answers by path; the replies of a path are used up one by one, the last is repeated."""

    def __init__(self, **replies: list[Reply]) -> None:
        self.replies = {f"/{path.replace('__', '/')}": list(answers) for path, answers in replies.items()}
        self.asked: dict[str, list[dict]] = defaultdict(list)
        self.headers: list[bytes] = []
        self.url = ""
        self.sent = 0
        """Pieces of the reply under way that went out so far."""

    async def _serve(self, line: trio.SocketStream) -> None:
        head, body = await _request(line)
        path = head.split()[1].decode()
        self.headers.append(head)
        self.asked[path].append(json.loads(body or "{}"))
        replies = self.replies.get(path, [whole("no such path", 404)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        for number, piece in enumerate(reply, 1):
            await wait_all_tasks_blocked(0.002)
            self.sent = number
            if piece is None:
                await trio.sleep_forever()
            elif isinstance(piece, trio.Event):
                piece.set()
            else:
                await line.send_all(piece)
        await wait_all_tasks_blocked(0.002)
        await line.aclose()

    async def listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        serve = partial(_quietly, self._serve)
        await trio.serve_listeners(serve, listeners, task_status=task_status)


async def _quietly(serve: Callable, line: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):  # the client hung up
        await serve(line)


async def _request(line: trio.SocketStream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await line.receive_some()
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += await line.receive_some()
    return head, body


@asynccontextmanager
async def serving(**replies: list[Reply]) -> AsyncIterator[Scripted]:
    """Serve while the block runs; a path's slashes are written ``__``."""
    async with trio.open_nursery() as nursery:
        server = Scripted(**replies)
        await nursery.start(server.listen)
        yield server
        nursery.cancel_scope.cancel()


class Recorded:
    """What a workload put in its outlet."""

    def __init__(self, hub: Hub) -> None:
        self.tables = defaultdict(list)
        for batch in hub.take():
            self.tables[batch.source.key] += batch.data.to_pylist()

    def events(self, kind: str | None = None) -> list[dict]:
        """Rows of all event streams, without what is null, by kind if asked."""
        rows = [row for key, table in self.tables.items() if not key.startswith("run.") for row in table]
        return [
            {k: v for k, v in row.items() if v is not None} for row in rows if kind in {None, row["kind"]}
        ]

    def detail(self, kind: str) -> list[dict]:
        return [json.loads(row["detail"]) for row in self.events(kind)]

    @property
    def facts(self) -> dict[str, object]:
        return {row["name"]: json.loads(row["value"]) for row in self.tables["run.facts"]}

    @property
    def readings(self) -> list[dict]:
        return self.tables["run.readings"]


async def run(workload: object, hub: Hub | None = None) -> Recorded:
    """Run a workload to its end and return what came."""
    hub = hub or Hub()
    await workload.collect(hub.outlet("w"))
    return Recorded(hub)


async def check_nobody_outlives(script: str, *arguments: str, alive: Path) -> None:
    """Run a Python script until its child opens the fifo ``alive`` for writing, kill -9 it, await the fifo's end."""
    os.mkfifo(alive)
    process = await trio.lowlevel.open_process([sys.executable, "-c", textwrap.dedent(script), *arguments])
    try:
        async with holders_of(alive) as ended:
            process.kill()
            await ended()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def holders_of(fifo: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Wait until somebody writes to ``fifo``; yield what waits until the last process that holds it has ended.

    So nobody has to look for processes. Both waits end in 30 s, in threads that are left behind then.
    """
    with trio.fail_after(30):
        end = await in_thread(partial(os.open, fifo, os.O_RDONLY))

    async def ended() -> None:
        with trio.fail_after(30):
            assert await in_thread(partial(os.read, end, 1)) == b""

    try:
        yield ended
    finally:
        os.close(end)


async def in_thread(blocking: Callable[[], T]) -> T:
    """Wait for a call that may never return; a deadline then leaves it behind."""
    return await trio.to_thread.run_sync(blocking, abandon_on_cancel=True)


def traces(path: str) -> Path:
    """A file of the recorded traces; skips the test where they are not there."""
    found = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[2].parent / "shared" / "traces")) / path
    if not found.exists():
        pytest.skip(f"no recorded trace {found}: set MELT_TRACES to the folder of traces")
    return found

"""What a script says while it is recorded, from any of its threads, as the events of a workload."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import trio

from melt_stream.clock import monotonic
from melt_stream.events import EVENTS, Kind
from melt_stream.outlet import Outlet, Row


@dataclass
class Answer:
    """One request of a script, and the tokens of its answer."""

    script: Script
    name: str
    number: int = 0
    tokens: int = 0

    def begin(self, prompt_tokens: int | None = None) -> None:
        """Say that it is asked now."""
        self.number = self.script.next_request()
        self.script.say("request_sent", request=self.number, name=self.name)
        self.script.say("prefill_start", request=self.number, prompt_total=prompt_tokens)

    def token(self, text: str | None = None, *, count: int = 1) -> None:
        """Note that a token of the answer is there, or ``count`` at once."""
        if not self.number:
            self.begin()
        self.tokens += count
        self.script.say(
            "token", request=self.number, index=self.tokens - 1, count=count, visible=True, text=text
        )

    def end(self, kind: Kind, **detail: str) -> None:
        """Say that it is over."""
        if self.number:
            self.script.say(kind, request=self.number, name=self.name, detail=json.dumps(detail))


class Script:
    """The workload of a recording: what the script said, handed over at each flush."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.loose = Answer(self, "")
        self._said: deque[Row] = deque()
        self._lock = threading.Lock()
        self._over: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._out: Outlet | None = None

    async def collect(self, out: Outlet) -> None:
        """Hand over what is said until it is over."""
        self._out, self._token, self._over = out, trio.lowlevel.current_trio_token(), trio.Event()
        self.started.set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hand_over, out)
                await self._over.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._drain(out)

    def say(self, kind: Kind, **values: Any) -> None:
        """Note an event that happens now; from any thread."""
        with self._lock:  # the order of the times is the order of the rows
            self._said.append({"tick": monotonic(), "kind": kind, **values})

    def next_request(self) -> int:
        """Return the next request's number."""
        assert self._out is not None, "a recording has begun before its body runs"
        return self._out.next_request()

    def end(self) -> None:
        """Let the workload end; from any thread, also when the engine has ended."""
        self.loose.end("request_end")
        if self._token is not None and self._over is not None:
            try:
                self._token.run_sync_soon(self._over.set)
            except trio.RunFinishedError:
                return  # the engine ended first

    async def _hand_over(self, out: Outlet) -> None:
        while True:
            await out.flushing()
            self._drain(out)

    def _drain(self, out: Outlet) -> None:
        while self._said:
            out.row(EVENTS, **self._said.popleft())

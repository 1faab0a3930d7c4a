"""The clock of a llama-server's process, tied to ours by questions, and each request's tied to it by the log.

A request that is no JSON is answered at once, and logged with what it was: the line's time lies between our question and the answer. When
a slot started on its prompt is not told, but the log has two moments that it lies between: the launch of its task, and the end of its
timings less what they say that it took. So no part of what a request waits for on its way enters the times of its tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import httpx
import trio

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._chat import Timings
from melt_stream.collectors._llama_log import Task, Tasks, stamp
from melt_stream.outlet import Outlet

PROCESS = Clock("process", tick_ns=1000.0)
"""us since the server's process began; the epoch counts its starts."""
BURST, EVERY_S = 8, 1.0
VAIN = 3
"""Questions without a line in the log, after which it is taken for one that says nothing."""
LINE_S = 1.0
"""How long a line of the log may take to come here."""
_ASKED = re.compile(r"melt_stream (\d{1,12})\b")


@dataclass
class ServerClock:
    """Of the servers that a workload starts one after the other, if at all; ``epoch`` counts them."""

    out: Outlet
    epoch: int = -1
    _tasks: Tasks = field(default_factory=Tasks)
    _done: list[Task] = field(default_factory=list)
    _lines: dict[int, int] = field(default_factory=dict)
    """By number: the time of its line."""
    _number: int = 0
    _news: trio.Event = field(default_factory=trio.Event)

    def begin(self) -> None:
        """A new process begins."""
        self.epoch += 1
        self._tasks, self._done = Tasks(), []

    def heard(self, line: str) -> None:
        """Take a line of its log."""
        if (task := self._tasks.feed(line)) is not None:
            self._done.append(task)
        elif (found := _ASKED.search(line)) and (at := stamp(line)) is not None:
            self._lines[int(found[1])] = at
        self._news.set()
        self._news = trio.Event()

    async def keep(self, client: httpx.AsyncClient) -> None:
        """Ask some times, then once a second, until cancelled or in vain."""
        vain = 0
        while vain < VAIN:
            vain = 0 if await self._ask(client) else vain + 1
            if self._number >= BURST:
                await trio.sleep(EVERY_S)
        await trio.sleep_forever()

    async def answered(self, clock: Clock, request: int, timings: Timings) -> None:
        """Say what the log tells of the clock of a request, as soon as it does."""
        with trio.move_on_after(LINE_S):
            while (task := next((task for task in self._done if task.is_of(timings)), None)) is None:
                if not self._lines and not self._done and self._number >= VAIN:
                    return  # a log that says nothing
                await self._news.wait()
            self._done.remove(task)
            began = task.ended + 2 - timings.us  # its us and those of the timings are cut off
            if task.launched <= began:
                self.out.clock_reading(
                    Reading(
                        clock, 0, not_before=task.launched, not_after=began, epoch=request, against=PROCESS,
                        against_epoch=self.epoch,
                    )
                )  # fmt: skip

    async def _ask(self, client: httpx.AsyncClient) -> bool:
        self._number += 1
        number, sent = self._number, self.out.now()
        try:
            await client.post(
                "/tokenize", content=f'"melt_stream {number}', headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError:
            return True  # the link, or the server: whoever watches them knows
        answered = self.out.now()
        with trio.move_on_after(LINE_S):
            while number not in self._lines:
                await self._news.wait()
            reading = Reading(
                PROCESS, self._lines[number], not_before=sent, not_after=answered, epoch=self.epoch
            )
            self.out.clock_reading(reading)
        return number in self._lines

"""Instruments that send samples at a rate of their own, once told to, with the faults that all of them share.

Samples keep true time: those that a client's pause held up come later, all at once; only what it does not fetch for
a whole second is dropped, as an instrument's own buffer would.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated
from melt_stream.emulators._pty import Line

BURST_S = 0.002
"""How often samples are sent."""
PATIENCE_S = 1.0
"""Samples older than this that nobody fetched are dropped."""


@dataclass
class Sending(Emulated, ABC):
    """Sends what ``wire`` makes while it streams."""

    started: int = field(default=0, init=False)
    """Host time of sample 0, ns."""
    _lost: int = field(default=0, init=False)
    _losing: bool = field(default=False, init=False)
    _epoch: int = field(default=0, init=False)
    _streaming: trio.Event = field(default_factory=trio.Event, init=False)

    @property
    @abstractmethod
    def nominal_hz(self) -> float:
        """Samples a second where its clock is right."""

    @abstractmethod
    def wire(self, start: int, stop: int, hz: float) -> bytes:
        """Make the samples from ``start`` to ``stop``, counted from when streaming began, as they are sent."""

    def _start(self) -> None:
        self.started, self._epoch = monotonic(), self._epoch + 1
        self._streaming.set()

    def _stop(self) -> None:
        if self._streaming.is_set():  # else somebody waits for this very event
            self._streaming, self._epoch = trio.Event(), self._epoch + 1

    async def _send(self, line: Line, scope: trio.CancelScope) -> None:
        while True:
            await self._streaming.wait()
            if not self._streaming.is_set():
                continue  # stopped in the meantime: it was another event that was waited for
            epoch, hz = self._epoch, self.nominal_hz * self.faults.rate
            made = stalled = 0
            while epoch == self._epoch:
                await trio.sleep(BURST_S)
                if epoch != self._epoch:
                    break
                due = int((monotonic() - self.started) / 1e9 * hz)
                if due - made > PATIENCE_S * hz:
                    made = due - int(BURST_S * hz)
                seconds = made / hz
                if self.faults.due("unplug", seconds, made):
                    scope.cancel()
                    line.unplug()
                    return
                made += int(self.faults.due("skip", seconds, made))
                stalled = max(stalled, made + round(self.faults.due("stall", seconds, made) * hz))
                made = max(made, stalled)
                if due <= made:
                    continue
                self._lost += int(self.faults.due("lose", seconds, made))
                data = self.faults.harm(self.wire(made, due, hz), seconds, made)
                await line.write(self._lose(data))
                made = due

    def _lose(self, data: bytes) -> bytes:
        """Lose bytes in one piece, from within a word on, however many writes that takes."""
        if not self._lost:
            self._losing = False
            return data
        start = 0 if self._losing else len(data) // 2 + 1
        cut = min(self._lost, len(data) - start)
        self._lost, self._losing = self._lost - cut, True
        return data[:start] + data[start + cut :]

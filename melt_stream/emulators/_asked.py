"""A small meter on a pty that answers when it is asked, with what its last sample was."""

from __future__ import annotations

import random
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._pty import Line, plugged_in


@dataclass
class Asked(Emulated):
    """What such meters have in common. Faults are counted by seconds of the load, and strike the next answer."""

    _: KW_ONLY
    volts: float = 5.0
    update_hz: float = 0.0
    """How often it samples; in between, answers repeat. 0: for each answer."""
    heard: list[bytes] = field(default_factory=list, init=False)
    """Every request that was answered, or that a fault kept from it."""
    mah: float = field(default=0.0, init=False)
    mwh: float = field(default=0.0, init=False)
    """What has flowed, as far as it was asked for."""
    _amps: float = field(default=0.0, init=False)
    _counted: float = field(default=0.0, init=False)

    @abstractmethod
    def split(self, waiting: bytes) -> tuple[bytes, bytes]:
        """Take the first request off what has come; no request: not yet a whole one."""

    @abstractmethod
    def answer(self, request: bytes, amps: float) -> bytes:
        """Return the answer to a request, while so much flows; may be none."""

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the meter until cancelled, or unplugged by a fault."""
        self.began = monotonic()
        async with plugged_in() as line:
            task_status.started({"port": line.path})
            waiting = b""
            while True:
                waiting += await line.read()
                request, waiting = self.split(waiting)
                while request:
                    self.heard.append(request)
                    if self.faults.due("unplug", self.seconds(), len(self.heard)):
                        return
                    await self._reply(request, line)
                    request, waiting = self.split(waiting)

    async def _reply(self, request: bytes, line: Line) -> None:
        due = partial(self.faults.due, seconds=self.seconds(), sample=len(self.heard))
        reply = self.answer(request, self._sampled())
        if pause := due("stall"):
            await trio.sleep(pause)
        if due("junk_instead"):
            reply = random.Random(self.faults.seed).randbytes(len(reply))  # noqa: S311 - no secret
        if reply:
            await line.write(self.faults.harm(reply, self.seconds(), len(self.heard)))

    def _sampled(self) -> float:
        """Take the newest sample, and count what has flowed since the one before."""
        now = self.seconds()
        at = now - now % (1 / self.update_hz) if self.update_hz else now
        hours = (at - self._counted) / 3600
        self.mah += 1e3 * self._amps * hours
        self.mwh += 1e3 * self._amps * self.volts * hours
        self._counted, self._amps = at, float(self.load.amps(np.array([at]), self.volts)[0])
        return self._amps

"""A power supply and meter that speaks SCPI, on a TCP socket or a pty, with an error queue."""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._pty import plugged_in

QUEUE = 20
"""Errors that are kept; one more makes the last -350."""
NO_ERROR = '+0,"No error"'
COMMANDS = (
    "*CLS", "*RST", "*WAI", "CONFigure:CURRent[:DC]", "CONFigure:VOLTage[:DC]", "[SENSe:]CURRent[:DC]:NPLCycles",
    "[SENSe:]CURRent[:DC]:ZERO:AUTO", "TRIGger:SOURce", "SAMPle:COUNt", "INSTrument:NSELect", "INSTrument[:SELect]",
    "[:]COMMunicate:HEADer", "RATE", "NUMeric:FORMat", "NUMeric[:NORMal]:NUMber", "NUMeric[:NORMal]:ITEM#",
    "[SOURce:]VOLTage[:LEVel]", "OUTPut[:STATe]",
)  # fmt: skip
Send = Callable[[bytes], Awaitable[None]]


@dataclass
class Scpi(Emulated):
    """One instrument. Own faults: ``error@1:-222`` puts that error in the queue instead of the next answer,
    ``disconnect@1`` closes the connection instead of it (another may be made), ``garble@1`` sends junk of its length.
    """

    own_faults: ClassVar[tuple[str, ...]] = ("error", "disconnect", "garble")

    _: KW_ONLY
    volts: float = 5.0
    serial: bool = False
    """On a pty instead of a socket."""
    identity: str = "melt_stream,emulated SCPI meter,0,1.0"
    errors: deque[str] = field(default_factory=deque, init=False)
    heard: list[str] = field(default_factory=list, init=False)
    """Every command and query that was understood or not, in the order it came."""
    answered: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._commands = [re.compile(_pattern(text), re.IGNORECASE) for text in COMMANDS]
        asked: dict[str, Callable[[], str]] = {
            "*IDN?": lambda: self.identity,
            "*OPC?": lambda: "1",
            "*TST?": lambda: "0",
            "SYSTem:ERRor[:NEXT]?": self._error,
            "MEASure[:SCALar][:VOLTage][:DC]?": lambda: f"{self.volts:+.8E}",
            "MEASure[:SCALar]:CURRent[:DC]?": lambda: f"{self._amps():+.8E}",
            "MEASure[:SCALar]:POWer?": lambda: f"{self._amps() * self.volts:+.8E}",
            "READ?": lambda: f"{self._amps():+.8E}",
            "NUMeric[:NORMal]:VALue?": self._all,
        }
        self._queries = [
            (re.compile(_pattern(text), re.IGNORECASE), answer) for text, answer in asked.items()
        ]

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the instrument until cancelled, or unplugged by a fault."""
        self.began = monotonic()
        async with trio.open_nursery() as nursery:
            if self.serial:
                await self._on_a_pty(task_status)
            else:
                serve = partial(
                    trio.serve_tcp, partial(self._on_tcp, nursery.cancel_scope), 0, host="127.0.0.1"
                )
                (listener,) = await nursery.start(serve)
                host, port = listener.socket.getsockname()[:2]
                task_status.started({"host": host, "tcp_port": port})

    async def _on_a_pty(self, task_status: trio.TaskStatus[Place]) -> None:
        async with plugged_in() as line:
            task_status.started({"port": line.path})
            rest = b""
            while True:
                *lines, rest = (rest + await line.read()).split(b"\n")
                for text in lines:
                    if not await self._take(text, line.write):
                        return

    async def _on_tcp(self, power: trio.CancelScope, stream: trio.SocketStream) -> None:
        rest = b""
        try:
            while data := bytes(await stream.receive_some(4096)):
                *lines, rest = (rest + data).split(b"\n")
                for text in lines:
                    if not await self._take(text, stream.send_all):
                        if self._unplugged:
                            power.cancel()
                        return
        except trio.BrokenResourceError:
            pass  # the client left while it was answered
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    _unplugged: bool = field(default=False, init=False)

    async def _take(self, line: bytes, send: Send) -> bool:
        """Do one line of commands; return whether the connection goes on."""
        answers = [
            answer
            for part in line.decode("ascii", "replace").split(";")
            if (answer := self._do(part.strip())) is not None
        ]
        if not answers:
            return True
        seconds, asked_itself = self.seconds(), line.strip().upper().startswith((b"SYST", b"*"))
        due = partial(self.faults.due, seconds=seconds, sample=self.answered)
        if due("unplug"):
            self._unplugged = True
            return False
        if not asked_itself:
            if pause := due("stall"):
                await trio.sleep(pause)
            if due("disconnect"):
                return False
            if code := due("error"):
                self.push(f'{int(code):+d},"Injected"')
                return True
            if due("garble"):
                size = sum(map(len, answers))
                junk = random.Random(self.faults.seed).randbytes(size).replace(b"\n", b"\0")  # noqa: S311 - no secret
                await send(junk + b"\n")
                return True
        self.answered += not asked_itself
        await send(";".join(answers).encode() + b"\n")
        return True

    def push(self, error: str) -> None:
        """Put an error in the queue."""
        if len(self.errors) < QUEUE:
            self.errors.append(error)
        else:
            self.errors[-1] = '-350,"Queue overflow"'

    def _do(self, text: str) -> str | None:
        """Return a query's answer; None for a command, and for what is not understood."""
        if not text:
            return None
        self.heard.append(text)
        header, _, _ = text.removeprefix(":").partition(" ")
        for pattern, answer in self._queries:
            if pattern.fullmatch(header):
                return answer()
        if header.upper() == "*CLS":
            self.errors.clear()
        if not any(pattern.fullmatch(header) for pattern in self._commands):
            self.push('-113,"Undefined header"')
        return None

    def _error(self) -> str:
        return self.errors.popleft() if self.errors else NO_ERROR

    def _amps(self) -> float:
        return float(self.load.amps(np.array([self.seconds()]), self.volts)[0])

    def _all(self) -> str:
        amps = self._amps()
        return f"{self.volts:.5E},{amps:.5E},{self.volts * amps:.5E}"


def _pattern(text: str) -> str:
    """Turn a manual's ``MEASure[:VOLTage]?`` into what matches its short and long forms."""
    pattern = (
        re.escape(text).replace(r"\[", "(?:").replace(r"\]", ")?").replace(r"\#", r"\d+").replace("\\:", ":")
    )
    return re.sub(r"([A-Z]+)([a-z]+)", r"\1(?:\2)?", pattern)

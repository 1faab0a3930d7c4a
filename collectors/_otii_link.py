"""The Otii application's TCP server: JSON messages that end in CRLF, each reply matched to its request.

Message types and error codes are those of Qoitech's own client (PyPI otii-tcp-client 1.0.13).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trio

from melt_stream.clock import Now
from melt_stream.collectors._line_sources import Tcp, tcp
from melt_stream.errors import DeviceError, Transient

USUAL_PORT = 1905
PATIENCE_S = 3.0
"""Silence after which Qoitech's client gives up."""
LONGEST = 32 << 20
"""Bytes of a message; 40,000 samples take about 1 MB."""
PASSING = frozenset({"Device not connected", "Command timeout", "Not ready"})
"""Refusals that asking again may cure."""
UNKNOWN = frozenset({"Invalid command", "Operation not supported", "Command not valid for device type"})
"""Refusals of a server or device that is too old, or of another type, to know the command."""
LICENCE = frozenset(
    {"No license", "License could not be reserved", "Not logged in", "Could not login", "Connection denied"}
)

Message = dict[str, Any]


class Answer(NamedTuple):
    """What a request got, and the host's time when it had come."""

    data: Mapping[str, Any]
    at: int

    def get(self, key: str, kind: type | tuple[type, ...], asked: str) -> Any:
        """Return one field. Raises ``DeviceError`` where it is not there, or of another type."""
        value = self.data.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise DeviceError(
                f"Otii, {asked}: expected {key!r} to be {wanted}, got {str(value)[:80]!r}; is it an Otii server?"
            )
        return value


@dataclass
class Messages:
    """Finds messages in bytes, however they are cut. Pure."""

    _rest: bytes = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes, yield whole messages. Raises ``Transient`` where one is none: the connection is of no use then."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in filter(None, map(bytes.strip, lines)):
            yield _message(line)
        if len(self._rest) > LONGEST:
            raise Transient(
                f"Otii: expected a message of at most {LONGEST} bytes, got {len(self._rest)} and no end"
            )


def _message(line: bytes) -> Message:
    try:
        message = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise Transient(f"Otii: expected a JSON object on a line, got {line[:60]!r} ({exc})") from exc
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Transient(f"Otii: expected a JSON object with a type, got {line[:60]!r}")
    return message


def _no_number(name: str) -> Any:
    raise ValueError(f"the constant {name}, which is not JSON")


@dataclass
class Link:
    """Requests and their answers, one at a time."""

    wire: Tcp
    greeting: Mapping[str, Any] = field(default_factory=dict)
    """What the server said of itself."""
    _messages: Messages = field(default_factory=Messages)
    _waiting: list[tuple[Message, int]] = field(default_factory=list)
    _asked: set[str] = field(default_factory=set)
    """Requests without an answer: of the last one, and of those that were given up."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def ask(self, command: str, patience_s: float = PATIENCE_S, **data: Any) -> Answer:
        """Send a request and wait for its answer; progress is waited through.

        Raises ``Transient`` where none comes within ``patience_s``, or the connection ends; ``DeviceError`` with the server's words where
        it refuses.
        """
        number = str(next(self._numbers))
        request: Message = {"type": "request", "cmd": command, "trans_id": number}
        if data:
            request["data"] = data
        self._asked.add(number)
        await self.wire.send(json.dumps(request).encode() + b"\r\n")
        while True:
            message, at = await self._next(f"an answer to {command}", patience_s)
            kind, whose = message["type"], message.get("trans_id")
            if kind in ("information", "progress"):
                continue
            if whose in self._asked - {number}:  # somebody gave that one up
                self._asked.discard(whose)
                continue
            if kind == "error" and whose in (number, None):
                self._asked.discard(number)
                raise _refusal(command, message)
            if kind != "response" or whose != number:
                raise Transient(
                    f"{self.wire.address}: expected the answer to {command} with trans_id {number!r}, got "
                    f"{kind} {message.get('cmd')!r} with {whose!r}"
                )
            self._asked.discard(number)
            answer = message.get("data") or {}
            return Answer(answer if isinstance(answer, dict) else {}, at)

    async def try_ask(self, command: str, **data: Any) -> Answer | None:
        """Ask; None where this server, or this type of device, does not know the command."""
        try:
            return await self.ask(command, **data)
        except Refused as exc:
            if exc.code in UNKNOWN:
                return None
            raise

    async def greet(self) -> None:
        """Wait for the server to say what it is."""
        message, _ = await self._next("an Otii server's greeting", PATIENCE_S)
        if message["type"] == "error":
            raise _refusal("connecting", message)
        if message["type"] != "information" or message.get("info") != "connected":
            raise DeviceError(
                f"{self.wire.address}: expected an Otii server's greeting, got {str(message)[:100]}; is it one?"
            )
        self.greeting = message.get("data") or {}

    async def _next(self, wanted: str, patience_s: float) -> tuple[Message, int]:
        with trio.move_on_after(patience_s):
            while not self._waiting:
                block = await self.wire.receive()
                self._waiting += [(message, block.arrival) for message in self._messages.feed(block.data)]
            return self._waiting.pop(0)
        raise Transient(f"{self.wire.address}: expected {wanted} within {patience_s:g} s, got none")


@asynccontextmanager
async def otii_server(address: str, now: Now) -> AsyncIterator[Link]:
    """Connect and be greeted, for the time of the body."""
    async with tcp(address, now, USUAL_PORT) as wire:
        link = Link(wire)
        await link.greet()
        yield link


class Refused(DeviceError):
    """The server answered with an error."""

    code: str = ""


class NotNow(Transient, Refused):
    """... that may be gone when asked again."""


def _refusal(command: str, message: Message) -> Refused:
    code = str(message.get("errorcode", "an error without a code"))
    said = message.get("data")
    more = f" ({said.get('message') or said})" if isinstance(said, dict) and said else ""
    hint = (
        "; log in in the Otii application and reserve a licence for automation there"
        if code in LICENCE
        else ""
    )
    refusal = (NotNow if code in PASSING else Refused)(f"Otii, {command}: got {code!r}{more}{hint}")
    refusal.code = code
    return refusal

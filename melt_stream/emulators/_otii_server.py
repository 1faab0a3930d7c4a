"""The emulated Otii's TCP server: messages in and out, whatever the commands mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

Data = dict[str, Any]
HELLO = {"otii_version": "3.5.5", "protocol_version": "0.1", "server": "otii-server"}


class Refusal(Exception):
    """An error reply."""

    def __init__(self, code: str, **data: Any) -> None:
        super().__init__(code)
        self.code, self.data = code, data


@dataclass
class Server:
    """Any number of clients, each request answered in its turn."""

    do: Callable[[str, Data], Data | None]
    """Does a command; raises ``Refusal``, or ``KeyError`` for a key that is not there."""
    harm: Callable[[bytes], bytes]
    """What becomes of a message on its way."""
    progress: bool
    """Say how far it is before data are sent."""
    _clients: set[trio.SocketStream] = field(default_factory=set)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Talk to one client until it leaves."""
        self._clients.add(stream)
        try:
            await self._send(stream, {"type": "information", "info": "connected", "data": HELLO})
            rest = b""
            while data := bytes(await stream.receive_some(1 << 16)):
                *lines, rest = (rest + data).split(b"\r\n")
                for line in lines:
                    for message in self._take(line):
                        await self._send(stream, message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client left, or a fault disconnected it
        finally:
            self._clients.discard(stream)
            with trio.CancelScope(shield=True):
                await stream.aclose()

    async def disconnect(self) -> None:
        """Close all connections."""
        for client in list(self._clients):
            await client.aclose()

    async def _send(self, stream: trio.SocketStream, message: Data) -> None:
        await stream.send_all(self.harm(json.dumps(message).encode()) + b"\r\n")

    def _take(self, line: bytes) -> list[Data]:
        """Do one request; return what is sent for it."""
        try:
            request = json.loads(line)
            command = request["cmd"]
        except (ValueError, TypeError, KeyError) as exc:
            said = {"parse_error": str(exc), "data": line.decode(errors="replace")}
            return [{"type": "error", "errorcode": "Not able to parse request", "cmd": "", "data": said}]
        frame = {"cmd": command, **({"trans_id": request["trans_id"]} if "trans_id" in request else {})}
        try:
            answer = self.do(command, request.get("data") or {})
        except Refusal as exc:
            return [{"type": "error", "errorcode": exc.code, **frame, "data": exc.data}]
        except KeyError as exc:
            missing = {"key": exc.args[0]}
            return [{"type": "error", "errorcode": "Missing key in request", **frame, "data": missing}]
        before = [{"type": "progress", **frame, "progress_value": 0.5}] if self.progress else []
        return [*before, {"type": "response", **frame, **({"data": answer} if answer is not None else {})}]

"""The guard of a condition: a process of ours that puts it back if we are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from melt_stream.collectors._guard_child import DONE, NOTED
from melt_stream.collectors._undoing import Undo, packed
from melt_stream.devices import Device
from melt_stream.errors import DeviceError

PATIENCE_S = 20.0


@dataclass
class Guard:
    """A guard that waits."""

    process: trio.Process
    device: Device
    patience_s: float

    async def expect(self, undos: Sequence[Undo]) -> None:
        """Have it know what to undo from now on; when this returns, it does. Raises ``DeviceError`` where it does not answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        said = b""
        with trio.move_on_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            await self.process.stdin.send_all(packed(self.device, undos, self.patience_s))
            while not said.endswith(NOTED) and (some := await self.process.stdout.receive_some()):
                said += some
        if not said.endswith(NOTED):
            raise DeviceError(
                f"{self.device.name}: expected our guard process to note what to put back, got {said!r}; nothing more was set"
            )


@asynccontextmanager
async def guarding(device: Device, patience_s: float, keep: Sequence[int] = ()) -> AsyncIterator[Guard]:
    """Have a guard for the time of the body, after which there is nothing to undo. It holds the descriptors ``keep`` open.

    It is in a session of its own: no signal of a terminal, and none to our process group, reaches it.
    """
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "melt_stream.collectors._guard_child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, pass_fds=keep,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Guard(process, device, patience_s)
    finally:
        with trio.CancelScope(shield=True):
            with suppress(trio.BrokenResourceError):  # somebody killed it
                await process.stdin.send_all(DONE)
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()

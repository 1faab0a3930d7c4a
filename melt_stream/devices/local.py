"""This machine as a device: commands in process groups of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import trio

from melt_stream.devices.channel import Channel, Gone
from melt_stream.errors import DeviceError

BLOCK = 1 << 16
KEPT = 4096
"""Bytes of stderr that are kept."""


@dataclass
class _Running:
    process: trio.Process
    stderr: BinaryIO

    async def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(trio.BrokenResourceError):  # it does not read: its exit status says more
            await self.process.stdin.send_all(data)

    async def receive(self) -> bytes:
        assert self.process.stdout is not None
        return bytes(await self.process.stdout.receive_some(BLOCK))

    async def close_stdin(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def status(self) -> int:
        while await self.receive():
            pass
        return await self.process.wait()

    def complaints(self) -> str:
        size = os.fstat(self.stderr.fileno()).st_size
        return os.pread(self.stderr.fileno(), KEPT, max(0, size - KEPT)).decode(errors="replace").strip()


@dataclass
class Local:
    """This machine."""

    name: str = "host"
    shell: str = "/bin/sh"

    @asynccontextmanager
    async def channel(self, command: str) -> AsyncIterator[Channel]:
        with tempfile.TemporaryFile() as stderr:
            try:
                process = await trio.lowlevel.open_process(
                    [self.shell, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as exc:
                raise Gone(f"{self.name}: expected the shell {self.shell}, got {exc}") from exc
            try:
                yield _Running(process, stderr)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await process.wait()
                    for pipe in (process.stdin, process.stdout):
                        assert pipe is not None
                        await pipe.aclose()

    async def push(self, local: Path, remote: str) -> None:
        await trio.to_thread.run_sync(shutil.copyfile, local, remote)

    async def pull(self, remote: str, local: Path) -> None:
        await trio.to_thread.run_sync(shutil.copyfile, remote, local)

    @asynccontextmanager
    async def forward(self, port: int) -> AsyncIterator[int]:
        await trio.lowlevel.checkpoint()
        yield port

    def by_hand(self, command: str) -> str:
        return command

    async def reboot(self) -> None:
        raise DeviceError(f"{self.name}: expected a device that is not this machine, to start it anew")

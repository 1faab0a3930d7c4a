"""An emulated phone, and real adb servers, for the time of a test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from melt_stream.emulators import Faults, Load, Place
from melt_stream.emulators.android import Android

WHEELS = "of the adbutils wheel"
ADBS = ("Debian's", WHEELS)


@asynccontextmanager
async def playing(
    *faults: str, load: str = "constant:2W", **fields: Any
) -> AsyncIterator[tuple[Android, Place]]:
    phone = Android(load=Load.parse(load), faults=Faults.parse(faults, Android.own_faults), **fields)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(phone.play)
        yield phone, place
        nursery.cancel_scope.cancel()


@dataclass
class Adb:
    """A real ``adb``, with a server of its own."""

    binary: str
    port: int

    async def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command."""
        return await trio.to_thread.run_sync(partial(self.run, *words, stdin=stdin))

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Do it and wait."""
        environment = os.environ | {
            "ANDROID_ADB_SERVER_PORT": str(self.port), "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "ADB_MDNS": "0",
        }  # fmt: skip
        return subprocess.run(
            [self.binary, *words], input=stdin, capture_output=True, check=False, timeout=30, env=environment
        )


def binary(whose: str) -> str:
    """The program, or the test is skipped."""
    if whose == WHEELS:
        adbutils = pytest.importorskip("adbutils")
        found = Path(adbutils.__file__).parent / "binaries" / "adb"
        if not found.exists():
            pytest.skip("expected an adb in the adbutils wheel, got none: another platform")
        return str(found)
    if (path := shutil.which("adb")) is None:
        pytest.skip("expected adb: apt-get install adb")
    return path


@contextmanager
def serving(whose: str) -> Iterator[Adb]:
    """An adb server on a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    adb = Adb(binary(whose), port)
    words = [adb.binary, "-P", str(port), "nodaemon", "server"]
    environment = os.environ | {"ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "ADB_MDNS": "0"}
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as server:
        try:
            while server.poll() is None:
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
            yield adb
        finally:
            server.kill()

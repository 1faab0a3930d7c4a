"""Files kept on a device under what is in them: pushed once, resumed where that was cut, checked by SHA-256 before they count."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from melt_stream.devices._sums import sha256_of
from melt_stream.devices.channel import Device, quoted, run
from melt_stream.errors import ConfigError, DeviceError

BLOCK = 1 << 18
SHARES = 10
"""A push of more than ``WORTH_TELLING`` bytes is told so many times."""
WORTH_TELLING = 8 << 20
SPARE = 16 << 20
"""Bytes that a push leaves free."""
HASHING_S = 600.0
FREE = re.compile(r"\s(\d+)\s+\d+%\s")
_PROBE = """
abi=$(getprop ro.product.cpu.abi 2>/dev/null)
if [ -n "$abi" ]; then echo "$abi"; echo /data/local/tmp/melt_stream; else uname -m; echo "${HOME:-/tmp}/.cache/melt_stream"; fi
"""


@dataclass(frozen=True)
class Store:
    """A folder of a device's, for files of ours."""

    device: Device
    folder: str
    machine: str
    """What runs there: Android's ABI (``arm64-v8a``), elsewhere what ``uname -m`` says (``aarch64``)."""
    told: Callable[[str], None]
    """Hears how far a big push is."""

    async def put(self, files: Sequence[Path]) -> str:
        """Return the folder there in which these files are, side by side under their own names; push those that are not.

        Raises ``Gone`` where the link ends: the next try goes on where this one was cut. ``ConfigError`` for a file that is not here,
        ``DeviceError`` where there is no room for it, or what came is not what was sent.
        """
        sums = [await trio.to_thread.run_sync(_sum, file) for file in files]
        key = sums[0] if len(files) == 1 else _key(files, sums)
        folder = f"{self.folder}/{key}"
        await self._do(["mkdir", "-p", folder], f"make {folder}")
        for file, wanted in zip(files, sums, strict=True):
            await self._put(file, f"{folder}/{file.name}", wanted)
        return folder

    async def _put(self, local: Path, remote: str, wanted: str) -> None:
        seen = await trio.Path(local).stat()
        size = seen.st_size
        if await self._size(remote) == size:
            return
        part, got = f"{remote}.part", ""
        for _ in range(2):  # what an earlier try left may be anything
            await self._append(local, part, size)
            got = (await self._do(["sha256sum", part], f"read {part}", HASHING_S)).split(" ")[0]
            if got == wanted:
                mode = "755" if seen.st_mode & 0o100 else "644"
                script = 'chmod "$1" "$2" && mv -f "$2" "$3"'
                await self._do(["sh", "-c", script, "sh", mode, part, remote], f"write {remote}")
                return
            await self._do(["rm", "-f", part], f"remove {part}")
        raise DeviceError(
            f"{self.device.name}: {remote}: expected SHA-256 {wanted} after copying, got {got}; try: its storage's health"
        )

    async def _append(self, local: Path, part: str, size: int) -> None:
        """Send what the part lacks."""
        if (there := await self._size(part) or 0) > size:
            await self._do(["rm", "-f", part], f"remove {part}")
            there = 0
        await self._room(size - there, local)
        step, sent = max(size // SHARES, 1), there
        async with (
            self.device.channel(f"cat >>{quoted([part])}") as channel,
            await trio.open_file(local, "rb") as file,
        ):
            await file.seek(there)
            while block := await file.read(BLOCK):
                await channel.send(block)
                if size >= WORTH_TELLING and (sent + len(block)) // step > sent // step:
                    self.told(
                        f"{local.name}: {(sent + len(block)) / 1e6:.0f} of {size / 1e6:.0f} MB are there"
                    )
                sent += len(block)
            await channel.close_stdin()
            if status := await channel.status():
                raise DeviceError(
                    f"{self.device.name}: expected to write {part}, got exit status {status}: {channel.complaints()[-200:]}"
                )

    async def _room(self, needed: int, local: Path) -> None:
        told = await self._do(["df", "-Pk", self.folder], f"see how much is free in {self.folder}")
        found = FREE.findall(told)
        free = int(found[-1]) * 1024 if found else None
        if free is not None and free < needed + SPARE:
            raise DeviceError(
                f"{self.device.name}: {local.name}: expected {(needed + SPARE) / 1e6:.0f} MB free in {self.folder}, got "
                f"{free / 1e6:.0f} MB; try: remove models of before there, or folder = another place"
            )

    async def _size(self, path: str) -> int | None:
        done = await run(self.device, ["stat", "-L", "-c", "%s", path])
        return None if done.status else int(done.out)

    async def _do(self, command: Sequence[str], what: str, deadline_s: float = 30.0) -> str:
        done = await run(self.device, command, deadline_s=deadline_s)
        if done.status:
            raise DeviceError(
                f"{self.device.name}: expected to {what}, got exit status {done.status}: {done.complaints[-200:]}"
            )
        return done.out.decode(errors="replace")


async def opened(device: Device, told: Callable[[str], None], folder: str = "") -> Store:
    """Return the device's store: in ``folder``, else where its kind keeps such things. Raises ``Gone``."""
    done = await run(device, ["sh", "-c", _PROBE])
    lines = done.out.decode(errors="replace").splitlines()
    if done.status or len(lines) != 2:
        raise DeviceError(
            f"{device.name}: expected its processor's name, got {done.out[:80]!r}: {done.complaints[-200:]}"
        )
    return Store(device, folder or lines[1], lines[0], told)


def _key(files: Sequence[Path], sums: Sequence[str]) -> str:
    lines = sorted(f"{wanted} {file.name}\n" for file, wanted in zip(files, sums, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sum(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as exc:
        raise ConfigError(f"expected a file for the device, got {path}: {exc.strerror}") from exc

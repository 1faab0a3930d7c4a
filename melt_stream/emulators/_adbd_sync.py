"""adb's file service: LIST, STAT, SEND, RECV, and the later forms of the first two. Source: AOSP's SYNC.TXT, file_sync_protocol.h."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from melt_stream.emulators._adbd import Wire

HEAD = struct.Struct("<4sI")
FIRST = struct.Struct("<4s3I")
"""Mode, size, time."""
SECOND = struct.Struct("<4sI2Q4IQ3q")
"""Error, device, inode, mode, links, user, group, size, three times."""
BLOCK = 1 << 16
Find = Callable[[str], Path]
"""From the device's name of a file to ours."""


async def serve(wire: Wire, find: Find) -> None:
    """Do requests until QUIT. Raises ``Hangup`` where the host leaves."""
    while True:
        command, size = HEAD.unpack(await wire.exactly(HEAD.size))
        if command == b"QUIT":
            return
        name = (await wire.exactly(size)).decode(errors="replace")
        match command:
            case b"STAT":
                await wire.send(_first(b"STAT", find(name)))
            case b"LST2" | b"STA2":
                await wire.send(_second(command, find(name), follow=command == b"STA2"))
            case b"LIST":
                await _list(wire, find(name), _first, b"DENT", FIRST.size)
            case b"LIS2":
                await _list(wire, find(name), _second, b"DNT2", SECOND.size)
            case b"RECV":
                await _give(wire, find(name))
            case b"SEND":
                path, _, mode = name.rpartition(",")
                await _take(wire, find(path), int(mode) & 0o777)
            case _:
                await wire.send(_failure(f"unknown command {command!r}"))
                return


def _first(word: bytes, path: Path) -> bytes:
    try:
        seen = path.lstat()
    except OSError:
        return FIRST.pack(word, 0, 0, 0)
    return FIRST.pack(word, seen.st_mode, seen.st_size & 0xFFFFFFFF, int(seen.st_mtime))


def _second(word: bytes, path: Path, *, follow: bool = False) -> bytes:
    try:
        seen = path.stat() if follow else path.lstat()
    except OSError as exc:
        return SECOND.pack(word, exc.errno or errno.EIO, *[0] * 10)
    return SECOND.pack(
        word, 0, seen.st_dev, seen.st_ino, seen.st_mode, seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_size,
        int(seen.st_atime), int(seen.st_mtime), int(seen.st_ctime),
    )  # fmt: skip


async def _list(
    wire: Wire, folder: Path, entry: Callable[[bytes, Path], bytes], word: bytes, size: int
) -> None:
    said = b""
    with suppress(OSError):  # of what is no folder, nothing is listed
        for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names are wanted
            data = name.encode(errors="surrogateescape")
            said += entry(word, folder / name) + struct.pack("<I", len(data)) + data
    await wire.send(said + b"DONE" + bytes(size))


async def _give(wire: Wire, path: Path) -> None:
    try:
        async with await trio.open_file(path, "rb") as file:
            while data := await file.read(BLOCK):
                await wire.send(HEAD.pack(b"DATA", len(data)) + data)
    except OSError as exc:
        await wire.send(_failure(f"read failed: {exc.strerror}"))
        return
    await wire.send(HEAD.pack(b"DONE", 0))


async def _take(wire: Wire, path: Path, mode: int) -> None:
    why, file = "", None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = await trio.open_file(path, "wb")
    except OSError as exc:
        why = f"couldn't create file: {exc.strerror}"
    try:
        while True:
            word, size = HEAD.unpack(await wire.exactly(HEAD.size))
            if word == b"DONE":
                break
            data = await wire.exactly(size)
            if file is not None:
                await file.write(data)
    finally:
        if file is not None:
            with trio.CancelScope(shield=True):
                await file.aclose()
    if file is not None:
        os.chmod(path, stat.S_IRUSR | mode)  # noqa: PTH101 - at once, as is the next
        os.utime(path, (size, size))
    await wire.send(_failure(why) if why else HEAD.pack(b"OKAY", 0))


def _failure(why: str) -> bytes:
    return HEAD.pack(b"FAIL", len(why)) + why.encode()

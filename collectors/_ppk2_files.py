"""The files of the nRF Connect Power Profiler: ``.ppk2``, a zip, opened without believing anything that it says of itself.

    session.raw     6 bytes a sample: float32 uA, little-endian; 8 pairs of bits for D0-D7, big-endian: 1 is low, 2 high, 3 both
    metadata.json   {"metadata": {"samplesPerSecond": 100000, "startSystemTime": ms since 1970}, "formatVersion": 2}

Facts from NordicSemiconductor/pc-nrfconnect-ppk 8da7626 (saveFileHandler.ts, globals.ts, bitConversion.ts, deviceActions.ts).
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from melt_stream.collectors._files import open_regular
from melt_stream.errors import DataError

FRAME = np.dtype([("microamps", "<f4"), ("bits", ">u2")])
SESSION, METADATA = "session.raw", "metadata.json"
ARCHIVE_LIMIT, SESSION_LIMIT = 16 << 30, 32 << 30
"""Bytes, packed and unpacked; unpacked, 15 hours at 100 kHz."""
DIRECTORY_LIMIT = 1 << 20
"""Bytes of the zip's directory, which is read whole; a session has three files."""
METADATA_LIMIT = 1 << 16
BLOCK = FRAME.itemsize << 17
LOST = np.float32(0.2)
"""What the app writes, in uA, for a sample that it did not receive; what it measures below this it writes as 0."""
RATES = (1e-3, 1e6)
_END, _FAR = b"PK\x05\x06", b"PK\x06\x07"
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    struct.error,
    OSError,
)


class Session(NamedTuple):
    """An open ``.ppk2``."""

    hz: float
    start_utc_ns: int | None
    frames: Iterator[np.ndarray[Any, Any]]
    """Blocks of ``FRAME``. Raises ``DataError`` where the rest is damaged."""


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open a ``.ppk2`` for the time of the body. Raises ``DataError`` where it is none, or larger than any recording."""
    with open_regular(path, ARCHIVE_LIMIT) as file:
        _check_directory(file, path)
        try:
            archive = zipfile.ZipFile(file)
        except _BROKEN as exc:
            raise DataError(f"{path}: expected a zip archive, got: {exc}") from exc
        with archive:
            raw = _metadata(archive, path)
            yield Session(*raw, _frames(archive, path))


def _check_directory(file: BinaryIO, path: Path) -> None:
    """Refuse a directory that would not fit in memory, before Python's reader takes it whole."""
    size = file.seek(0, 2)
    file.seek(max(0, size - (1 << 16) - 100))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 22:
        raise DataError(f"{path}: expected a zip archive's end, got none; was the file copied whole?")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    far = at >= 20 and tail[at - 20 : at - 16] == _FAR
    if far:
        (where,) = struct.unpack_from("<Q", tail, at - 12)
        if where > size - 56:
            raise DataError(f"{path}: expected the end of its directory within the file, got byte {where}")
        file.seek(where)
        (length,) = struct.unpack_from("<Q", file.read(56), 40)
        file.seek(0)
    if length > DIRECTORY_LIMIT:
        raise DataError(f"{path}: expected a directory of at most {DIRECTORY_LIMIT} bytes, got {length}")


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: Path) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == name]
    if len(found) != 1:
        names = ", ".join(info.filename[:40] for info in archive.infolist()[:5]) or "nothing"
        raise DataError(f"{path}: expected one {name} in it, got {names}; is it a .ppk2 of nRF Connect?")
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}, {name}: expected deflate, got compression {found[0].compress_type}")
    if found[0].file_size > limit:
        raise DataError(f"{path}, {name}: expected at most {limit} bytes, got {found[0].file_size}")
    return found[0]


def _metadata(archive: zipfile.ZipFile, path: Path) -> tuple[float, int | None]:
    where = f"{path}, {METADATA}"
    try:
        with archive.open(_member(archive, METADATA, METADATA_LIMIT, path)) as file:
            told = json.loads(file.read(METADATA_LIMIT).decode())["metadata"]
            hz, start = told["samplesPerSecond"], told.get("startSystemTime")
    except (*_BROKEN, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise DataError(f"{where}: expected samplesPerSecond, got: {str(exc)[:200]}") from exc
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not RATES[0] <= hz <= RATES[1]:
        raise DataError(
            f"{where}: expected samplesPerSecond of {RATES[0]:g} to {RATES[1]:g}, got {str(hz)[:40]}"
        )
    is_time = isinstance(start, int | float) and not isinstance(start, bool) and 0 < start < 9e12
    return float(hz), round(start * 1000) * 1000 if is_time else None


def _frames(archive: zipfile.ZipFile, path: Path) -> Iterator[np.ndarray[Any, Any]]:
    at, rest = 0, b""
    try:
        with archive.open(_member(archive, SESSION, SESSION_LIMIT, path)) as file:
            while data := file.read(BLOCK):
                at += len(data)
                if at > SESSION_LIMIT:
                    raise DataError(f"{path}, {SESSION}: expected at most {SESSION_LIMIT} bytes, got more")
                data = rest + data
                whole = len(data) // FRAME.itemsize * FRAME.itemsize
                rest = data[whole:]
                if whole:
                    yield np.frombuffer(data[:whole], FRAME)
    except _BROKEN as exc:
        raise DataError(f"{path}, {SESSION}, byte {at}: expected more samples, got: {exc}") from exc
    if rest:
        raise DataError(
            f"{path}, {SESSION}, byte {at - len(rest)}: expected 6 bytes a sample, got {len(rest)}; "
            "was the file copied whole?"
        )

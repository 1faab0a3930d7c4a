"""The journal: every stream as an Arrow IPC stream of its own that survives ``kill -9`` and power cuts."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import trio

from melt_stream.clock import monotonic
from melt_stream.errors import MeltError
from melt_stream.frames import FrameWriter
from melt_stream.manifest import sync_folder
from melt_stream.run import SUFFIX, RunFolder
from melt_stream.sink import Batch

_WINDOW_NS = 10_000_000_000
_PIECE = 1 << 20
"""Bytes a write: 64 MB at once take ext4 four to ten times the CPU time of the same in pieces (0.15 and 0.65 to 1.6 s
for 640 MB)."""
_CURES = {
    errno.ENOSPC: "the disk is full: free some space, or record to another archive",
    errno.EDQUOT: "the disk quota is used up: free some space, or record to another archive",
    errno.EROFS: "the file system is read-only: remount it, or record to another archive",
    errno.EIO: "the disk fails: look at the kernel's log, and record to another archive",
}


class JournalError(MeltError):
    """The journal cannot go on; what was written before is kept."""


class DiskLow(JournalError):
    """The disk will soon be full; everything that came so far was written."""


@dataclass
class Journal:
    """Writes each stream to ``<run>/journal/<instance>.<stream>.arrows`` (see ``melt_stream.frames``).

    Each list of batches is with the operating system before the next one is taken, so a killed process loses
    nothing that was handed over; it is synced to the disk every ``sync_every`` seconds, in a thread of its own.
    At the end the files get their end markers, and the folder's manifest the row counts, rails and facts.

    Sets ``ending`` while there is room for ``reserve_s`` seconds more at the rate of the last ten, or at
    ``reserve_bytes`` at the latest: the engine then ends the run in order, what still comes is written, and
    ``consume`` raises :class:`DiskLow` (``grace_s`` later if the run does not end). Raises :class:`JournalError` where
    writing fails or the folder has vanished; a file that could not be written to is never written to again.
    """

    folder: RunFolder
    _: KW_ONLY
    sync_every: float = 5.0
    reserve_s: float = 60.0
    reserve_bytes: int = 64 << 20
    grace_s: float = 5.0
    policy: ClassVar[str] = "wait"
    ending: trio.Event = field(default_factory=trio.Event, init=False, repr=False)
    """Set when the run should end because of this sink."""
    _files: dict[str, _File] = field(default_factory=dict, init=False, repr=False)
    _written: deque[tuple[int, int]] = field(default_factory=deque, init=False, repr=False)
    _sync_failed: JournalError | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._inode = self.folder.journal.stat().st_ino

    def prepare(self) -> None:
        """Let the run begin now: what was imported and looked up before it is not part of it."""
        self.folder.begin()

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        """Write until ``batches`` ends, then write the end markers and sync."""
        failure: JournalError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_synced)
                try:
                    await self._write_all(batches)
                except JournalError as exc:
                    failure = exc
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._end)
        finally:
            for file in self._files.values():
                file.close()
        if failure is not None:
            raise failure
        for file in self._files.values():
            file.check()

    async def _write_all(self, batches: AsyncIterator[list[Batch]]) -> None:
        low: DiskLow | None = None
        with trio.CancelScope() as patience:
            async for flush in batches:
                try:
                    await trio.to_thread.run_sync(self.write, flush)
                except DiskLow as exc:
                    if low is None:
                        low = exc
                        self.ending.set()
                        patience.deadline = trio.current_time() + self.grace_s
        if low is not None:
            raise low

    def write(self, flush: list[Batch]) -> None:
        """Write one flush; blocks until the operating system has it. Call it from one thread at a time."""
        if self._sync_failed is not None:
            raise self._sync_failed
        for batch in flush:
            self._remember(batch)
            self._file(batch).add(batch.data)
        size = sum(file.flush() for file in self._files.values())
        self._look_around(size)

    def _file(self, batch: Batch) -> _File:
        key = batch.source.key
        if (file := self._files.get(key)) is None:
            file = self._files[key] = _File(self.folder.journal / f"{key}{SUFFIX}", batch.source.schema)
        return file

    def _remember(self, batch: Batch) -> None:
        manifest = self.folder.manifest
        if batch.source.key == "run.rails":
            manifest.rails += batch.data.drop_columns(["tick"]).to_pylist()
        elif batch.source.key == "run.facts":
            manifest.facts += batch.data.drop_columns(["tick"]).to_pylist()

    async def _keep_synced(self) -> None:
        while True:
            await trio.sleep(self.sync_every)
            try:
                await trio.to_thread.run_sync(self._sync)
            except JournalError as exc:
                self._sync_failed = exc
                return

    def _sync(self) -> None:
        for file in list(self._files.values()):
            file.sync()
        _guarded(sync_folder, self.folder.journal)

    def _look_around(self, size: int) -> None:
        folder = self.folder.journal
        try:
            there = folder.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise JournalError(
                f"{folder}: expected the run's folder, found it gone: somebody removed or moved it"
            )
        disk = os.statvfs(folder)
        free, rate = disk.f_bavail * disk.f_frsize, self._rate(size)
        wanted = max(self.reserve_bytes, int(self.reserve_s * rate))
        if free < wanted:
            raise DiskLow(
                f"{folder}: expected {wanted / 1e6:,.0f} MB of free disk ({self.reserve_s:g} s at {rate / 1e6:,.2f} MB/s, "
                f"at least {self.reserve_bytes / 1e6:,.0f} MB), got {free / 1e6:,.0f} MB: free some space, "
                "or record to another archive"
            )

    def _rate(self, size: int) -> float:
        """Bytes a second over the last ten seconds; over the time so far, but never less than one, before that."""
        now = monotonic()
        self._written.append((now, size))
        while self._written[0][0] < now - _WINDOW_NS:
            self._written.popleft()
        return sum(size for _, size in self._written) / max((now - self._written[0][0]) / 1e9, 1.0)

    def _end(self) -> None:
        for file in self._files.values():
            file.end()
        self.folder.manifest.counts = {key: file.rows for key, file in self._files.items()}


class _File:
    """One journal file; after a failed write it takes nothing more."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.rows = path, 0
        """Rows that the operating system has."""
        self._schema = schema
        self._frames = FrameWriter(schema)
        self._broken = False
        self._failure: JournalError | None = None
        self._number: int = _guarded(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def add(self, data: pa.RecordBatch) -> None:
        if data.schema != self._schema:
            raise JournalError(
                f"{self.path.name}: expected the columns {self._schema.names} as declared first, got {data.schema.names}; "
                "give the other stream another name"
            )
        self._frames.add(data)

    def flush(self) -> int:
        data = self._frames.take()
        if data and not self._broken:
            self._write(data)
            self.rows = self._frames.rows
        return len(data)

    def end(self) -> None:
        """Write the end marker and sync; a failure is kept for ``check``."""
        try:
            self._frames.end()
            self.flush()
            self.sync()
        except JournalError as exc:
            self._failure = exc

    def check(self) -> None:
        """Raise what went wrong in ``end``."""
        if self._failure is not None:
            raise self._failure

    def sync(self) -> None:
        _guarded(os.fsync, self._number, path=self.path)

    def close(self) -> None:
        os.close(self._number)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        self._broken = True  # until all of it is written: a torn batch must stay the last thing in the file
        while view:
            view = view[_guarded(os.write, self._number, view[:_PIECE], path=self.path) :]
        self._broken = False


def _guarded(call: Any, *args: Any, path: Path | None = None) -> Any:
    try:
        return call(*args)
    except OSError as exc:
        where = path or args[0]
        cure = _CURES.get(
            exc.errno or 0, "look at the folder's permissions and the disk, or record to another archive"
        )
        raise JournalError(f"{where}: expected to write the journal, got {exc.strerror}; {cure}") from exc

"""A run's folder: made by whoever records, read in any state.

::

    <archive>/<run>/manifest.json             see melt_stream.manifest
    <archive>/<run>/lock                      flock of whoever records or packs
    <archive>/<run>/journal/<i>.<s>.arrows    see melt_stream.frames
    <archive>/<run>/<i>.<s>.parquet           once packed, and the derived tables beside them

A run is ``recording``, ``interrupted`` (its manifest is not final but nobody holds the lock), ``finished`` or
``packed``. Readers trust the manifest alone: other files in the folder are leftovers of an interrupted ``pack``.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from melt_stream.clock import Now, monotonic, utc_ns
from melt_stream.environment import host_facts, versions
from melt_stream.errors import ConfigError, DataError, MeltError
from melt_stream.frames import FrameReader
from melt_stream.lock import acquire, is_locked, locked
from melt_stream.manifest import NAME, Manifest, sync_folder

RunState = Literal["recording", "interrupted", "finished", "packed"]
JOURNAL = "journal"
SUFFIX = ".arrows"


class RunFolder:
    """A run that is being recorded: its folder, its manifest, and its lock until ``finish`` or ``close``."""

    def __init__(self, path: Path, manifest: Manifest, lock: int, now: Now) -> None:
        self.path, self.manifest = path, manifest
        self._lock: int | None = lock
        self._now = now

    @property
    def id(self) -> str:
        """The run's id, which is its folder's name."""
        return self.manifest.id

    @property
    def journal(self) -> Path:
        """The folder of the journals."""
        return self.path / JOURNAL

    def save(self) -> None:
        """Replace the manifest on disk."""
        self.manifest.save(self.path)

    def begin(self) -> None:
        """Count the run's time from now on; an imported one has a time axis of its own."""
        if not self.manifest.imported:
            self.manifest.start_ns, self.manifest.start_utc_ns = self._now(), utc_ns()
            self.save()

    def finish(
        self,
        reason: str,
        *,
        error: BaseException | None = None,
        signal: int | None = None,
        exit_status: int | None = None,
    ) -> None:
        """Say how the run ended, make its manifest final and let go of the lock.

        Raises ``MeltError`` where the manifest cannot be written: the run is then interrupted, and none of its rows lost.
        """
        manifest = self.manifest
        manifest.exit = {
            "reason": reason,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "signal": signal,
            "status": exit_status,
        }
        if not manifest.imported:
            manifest.stop_ns = self._now()
        manifest.state = "finished"
        try:
            self.save()
        except OSError as exc:
            raise MeltError(
                f"{self.path}: expected to write the manifest, got {exc.strerror}; the rows are kept, and "
                f"`melt-stream pack {self.id}` packs them"
            ) from exc
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the lock; without ``finish`` before, the run is interrupted from now on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create(
    archive: Path,
    *,
    recipe: dict[str, Any],
    name: str = "",
    devices: dict[str, Any] | None = None,
    imported: str = "",
    cell: str = "",
    study: dict[str, Any] | None = None,
    tags: Sequence[str] = (),
    start_utc_ns: int | None = None,
    now: Now = monotonic,
) -> RunFolder:
    """Make the folder of a new run, locked, with a manifest that says what is known before the first row.

    ``imported`` names the importer of a run that was recorded elsewhere: its time axis starts at 0 and
    ``start_utc_ns`` says when that was. Raises ``ConfigError`` where the archive cannot be written.
    """
    utc = utc_ns() if start_utc_ns is None else start_utc_ns
    try:
        archive.mkdir(parents=True, exist_ok=True)
        path = _new_folder(archive)
        lock = acquire(path)
        manifest = Manifest(
            path.name, "recording", 0 if imported else now(), utc, name=name, imported=imported, cell=cell, study=study or {},
            recipe=recipe, devices=devices or {}, tags=list(tags), host=host_facts(), versions=versions(),
        )  # fmt: skip
        manifest.save(path)
    except OSError as exc:
        raise ConfigError(
            f"{archive}: expected an archive folder that can be written, got {exc.strerror}; "
            "choose another with --archive or $MELT_ARCHIVE"
        ) from exc
    return RunFolder(path, manifest, lock, now)


class Run:
    """A run on disk, in any state. Reading never changes it."""

    def __init__(self, path: Path) -> None:
        if not (path / NAME).is_file():
            raise ConfigError(f"{path}: expected a run's folder, found no {NAME} in it")
        self.path = path.resolve()
        self.manifest = Manifest.load(self.path)

    @property
    def id(self) -> str:
        """The run's id."""
        return self.manifest.id

    @property
    def state(self) -> RunState:
        """What the manifest and the lock say now."""
        state = self.manifest.state
        if state == "recording" and not is_locked(self.path):
            return "interrupted"
        return state

    def keys(self) -> list[str]:
        """The keys ``<instance>.<stream>`` of its streams, sorted."""
        if self.manifest.state == "packed":
            return sorted(self.manifest.streams)
        return sorted(path.name.removesuffix(SUFFIX) for path in (self.path / JOURNAL).glob(f"*{SUFFIX}"))

    def schema(self, key: str) -> pa.Schema:
        """The schema of a stream, or of a derived table of a packed run."""
        if self.manifest.state == "packed":
            import pyarrow.parquet as pq

            return pq.read_schema(self.stored(key))
        schema = self.reader(key).schema
        if schema is None:
            raise DataError(f"{self.path / JOURNAL / key}{SUFFIX}: expected a schema, found none readable")
        return schema

    def batches(self, key: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a stream, or of a derived table of a packed run, in the order in which they are stored.

        From a journal come the good batches, however the file ends.
        """
        if self.manifest.state == "packed":
            import pyarrow.parquet as pq

            with pq.ParquetFile(self.stored(key)) as file:
                yield from file.iter_batches(columns=columns)
        else:
            for batch in self.reader(key):
                yield batch if columns is None else batch.select(columns)

    def table(self, key: str, columns: list[str] | None = None) -> pa.Table:
        """Return all of :meth:`batches` as a table."""
        schema = self.schema(key)
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
        return pa.Table.from_batches(list(self.batches(key, columns)), schema)

    def reader(self, key: str) -> FrameReader:
        """Return the reader of a stream's journal; raises ``ConfigError`` where there is none."""
        path = self.path / JOURNAL / f"{key}{SUFFIX}"
        if not path.is_file():
            raise ConfigError(f"run {self.id}: expected a stream of {self.keys()}, got {key!r}")
        return FrameReader(path)

    def stored(self, key: str) -> Path:
        """Return the Parquet file of a stream or a derived table; raises ``ConfigError`` where there is none."""
        entries = {**self.manifest.streams, **self.manifest.tables}
        if key not in entries:
            raise ConfigError(f"run {self.id}: expected one of {sorted(entries)}, got {key!r}")
        return self.path / entries[key].file

    def tag(self, *tags: str, remove: bool = False) -> None:
        """Add tags, or take them away; raises ``Locked`` while the run is recorded or packed."""
        with editing(self.path) as manifest:
            kept = set(manifest.tags)
            manifest.tags = sorted(kept - set(tags) if remove else kept | set(tags))
        self.manifest = manifest

    def note(self, text: str) -> None:
        """Replace the note; raises ``Locked`` while the run is recorded or packed."""
        with editing(self.path) as manifest:
            manifest.note = text
        self.manifest = manifest

    def remove(self) -> None:
        """Delete the run, all of it or nothing as far as a reader can see; raises ``Locked`` while it is recorded."""
        with locked(self.path):
            aside = self.path.with_name(f".removed-{self.path.name}")
            self.path.rename(aside)
            shutil.rmtree(aside)


def runs(archive: Path) -> list[Run]:
    """Return an archive's runs, oldest first."""
    return [Run(path) for path in run_folders(archive)]


def run_folders(archive: Path) -> list[Path]:
    """Return the folders of an archive's runs, oldest first; none where there is no archive."""
    try:
        with os.scandir(archive) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    return [archive / name for name in names if (archive / name / NAME).is_file()]


def find(archive: Path, name: str) -> Run:
    """Return the run called ``name``: an id, a unique prefix of one, a path, or ``last``.

    Raises ``ConfigError`` where there is none, or several.
    """
    if (archive / name / NAME).is_file() and name not in ("", ".", ".."):
        return Run(archive / name)
    if (Path(name) / NAME).is_file():
        return Run(Path(name))
    folders = run_folders(archive)
    if name == "last" and folders:
        return Run(folders[-1])
    found = [path for path in folders if path.name.startswith(name)]
    if len(found) == 1:
        return Run(found[0])
    got = ", ".join(path.name for path in found[-3:]) if found else f"none of {len(folders)} runs"
    raise ConfigError(
        f"{archive}: expected one run called {name!r} (id, unique prefix, path or 'last'), got {got}"
    )


@contextmanager
def editing(path: Path) -> Iterator[Manifest]:
    """Lock a run, hand out its manifest to be changed, and replace it; raises ``Locked`` while it is recorded."""
    with locked(path):
        manifest = Manifest.load(path)
        yield manifest
        manifest.save(path)


def _new_folder(archive: Path) -> Path:
    while True:
        moment = datetime.fromtimestamp(utc_ns() / 1e9, UTC)
        stamp = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
        path = archive / f"{stamp}-{secrets.token_hex(2)}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        (path / JOURNAL).mkdir()
        sync_folder(archive)
        return path

"""Where a zoo's files are: blobs by their content, and folders of artefacts that name them.

::

    <root>/blobs/sha256/<digest>              each content once, read-only
    <root>/artefacts/<model>/<variant>/       manifest.json, and its files as hard links to blobs
    <root>/downloads/<model>/                 parts of a download that was interrupted, to go on with
    <root>/work/<random>/                     what is being made; swept when its maker is gone
    <root>/locks/, <root>/lock                flock: who makes an artefact, who changes the store

An artefact appears whole, by one rename, or not at all. Roots: ``$MELT_STREAM_ZOO``, else the XDG data folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from melt_stream.errors import ConfigError, DataError, MeltError
from melt_stream.harness.zoo.artefact import MANIFEST, Artefact, File, hashed
from melt_stream.lock import acquire, alone, is_locked
from melt_stream.manifest import sync_folder

RESERVE = 64 << 20
"""Bytes of the disk that are never used."""


def root() -> Path:
    """Return the folder of the zoo: ``$MELT_STREAM_ZOO``, else ``melt_stream/zoo`` in the user's data folder."""
    if said := os.environ.get("MELT_STREAM_ZOO"):
        return Path(said)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "melt_stream" / "zoo"


class Store:
    """A zoo's folder; several processes may use it at once."""

    def __init__(self, folder: Path | None = None, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.root, self._say = (folder or root()).absolute(), say

    @property
    def _artefacts(self) -> Path:
        return self.root / "artefacts"

    def artefacts(self, model: str = "") -> list[Artefact]:
        """Return what is there, of one model or of all; raises ``DataError`` for a damaged manifest."""
        found = sorted(self._artefacts.glob(f"{model or '*'}/*/{MANIFEST}"))
        return [Artefact.load(path.parent) for path in found]

    def get(self, model: str, variant: str) -> Artefact | None:
        """Return an artefact by its variant; None where it is not there."""
        try:
            return Artefact.load(self._artefacts / model / variant)
        except FileNotFoundError:
            return None

    def find(self, model: str, variant: str) -> Artefact | None:
        """As ``get``, and by quantisation too: the pulled file may have the one that is asked for."""
        same = (one for one in self.artefacts(model) if one.quantisation == variant)
        return self.get(model, variant) or next(same, None)

    @contextmanager
    def making(self, model: str, variant: str) -> Iterator[None]:
        """Hold the lock of an artefact while it is made; waits for whoever makes it now."""
        with alone(self._folder("locks") / f"{model}@{variant}"):
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield an empty folder on the store's disk, which is gone when the block ends, or when we are killed: then at the next."""
        work = self._folder("work")
        with alone(self.root / "lock"):
            for left in work.iterdir():
                if not is_locked(left):
                    shutil.rmtree(left, ignore_errors=True)
            self._sweep()
            folder = work / secrets.token_hex(6)
            folder.mkdir()
            held = acquire(folder)
        try:
            inside = folder / "made"
            inside.mkdir()
            yield inside
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)

    def downloads(self, model: str) -> Path:
        """Return the folder that keeps parts of a model's download; the caller holds the lock of ``making``."""
        return self._folder("downloads") / model

    def require(self, needed: int, what: str) -> None:
        """Say what disk ``what`` needs at most; raise ``ConfigError`` where there is no room for that and a reserve."""
        free = shutil.disk_usage(self._folder("")).free
        self._say(f"{what}: needs up to {size(needed)} of disk, {size(free)} are free")
        if needed + RESERVE > free:
            raise ConfigError(
                f"{what}: expected {size(needed)} of disk (and {size(RESERVE)} to spare) at {self.root}, got {size(free)} free; "
                "remove an artefact with `melt-stream zoo rm`, or set $MELT_STREAM_ZOO to a folder on another disk"
            )

    def add(self, artefact: Artefact, made: Mapping[str, Path]) -> Artefact:
        """Take files, by the names they shall have, as an artefact; they are moved, and must be on the store's disk.

        ``artefact`` says the rest. Returns it with its folder and files; raises ``ConfigError`` where its name is taken.
        """
        files = tuple(hashed(name, path) for name, path in sorted(made.items()))
        target = self._folder("artefacts") / artefact.model / artefact.variant
        with self.workspace() as aside, alone(self.root / "lock"):
            for file in files:
                self._link(self._blob(file, made[file.name]), aside / file.name)
            whole = replace(artefact, files=files, folder=target)
            whole.save(aside)
            sync_folder(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.rename(target)
            except OSError as exc:
                raise ConfigError(
                    f"{artefact.reference}: expected no such artefact yet, got {exc.strerror}; remove it first"
                ) from exc
            sync_folder(target.parent)
        return whole

    def remove(self, artefact: Artefact) -> int:
        """Remove an artefact and the blobs that no other needs; returns the bytes freed."""
        with alone(self.root / "lock"):
            gone = self._folder("work") / secrets.token_hex(6)
            try:
                artefact.folder.rename(gone)
            except FileNotFoundError:
                raise ConfigError(f"{artefact.reference}: expected it in the zoo, got none") from None
            with suppress(OSError):  # there are other variants
                artefact.folder.parent.rmdir()
            shutil.rmtree(gone)
            return self._sweep()

    def verify(self, artefact: Artefact) -> list[str]:
        """Return what is wrong with an artefact's files, reading all of them; nothing where they are as they were."""
        wrong = []
        for file in artefact.files:
            path = artefact.folder / file.name
            try:
                found = hashed(file.name, path)
            except OSError as exc:
                wrong.append(f"{path}: expected {size(file.bytes)}, got {exc.strerror}")
                continue
            if found != file:
                wrong.append(
                    f"{path}: expected {file.bytes} bytes of sha256 {file.sha256}, got {found.bytes} of {found.sha256}"
                )
        return wrong

    def _blob(self, file: File, source: Path) -> Path:
        """Move a file among the blobs; one of the same content is kept, or replaced where its size shows damage."""
        blob = self._folder("blobs/sha256") / file.sha256
        if not blob.exists() or blob.stat().st_size != file.bytes:
            _sync(source)
            source.chmod(0o444)
            source.rename(blob)
            sync_folder(blob.parent)
        return blob

    def _link(self, blob: Path, name: Path) -> None:
        name.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(blob, name)
        except OSError as exc:
            raise MeltError(
                f"{self.root}: expected a file system with hard links, got {exc.strerror}; set $MELT_STREAM_ZOO"
            ) from exc

    def _sweep(self) -> int:
        """Remove the blobs that no artefact has; the caller holds the store's lock."""
        freed = 0
        for blob in self._folder("blobs/sha256").iterdir():
            info = blob.stat()
            if info.st_nlink == 1:
                freed += info.st_size
                blob.unlink()
        return freed

    def _folder(self, name: str) -> Path:
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(
                f"{path}: expected a folder that can be written, got {exc.strerror}; set $MELT_STREAM_ZOO"
            ) from exc
        return path


def usable(artefact: Artefact) -> Artefact:
    """Return an artefact whose files are there in their sizes; raises ``DataError`` otherwise. ``verify`` reads them too."""
    for file in artefact.files:
        path = artefact.folder / file.name
        found = path.stat().st_size if path.is_file() else None
        if found != file.bytes:
            raise DataError(
                f"{path}: expected {file.bytes} bytes, got {found}; try `melt-stream zoo rm {artefact.name}` and make it again"
            )
    return artefact


def size(count: float) -> str:
    """Say a number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

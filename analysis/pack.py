"""From the journals of a finished or interrupted run to sorted Parquet with derived tables.

New files are made in ``<run>/.pack``, synced, read back and compared; then they are renamed into the run's folder,
and the manifest that lists them replaces the old one: that commits. What it does not list goes last. Killed at any
moment, a run is therefore what it was before or packed, and packing it again finishes the work.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from melt_stream.analysis.build import Built, Progress, build
from melt_stream.lock import locked
from melt_stream.manifest import Manifest, sync_folder
from melt_stream.run import JOURNAL, Run

_ASIDE = ".pack"


def pack(path: Path, *, again: bool = False, progress: Progress | None = None) -> Run:
    """Pack the run in folder ``path``; with ``again`` derive a packed run's tables anew from its raw columns.

    Does nothing but tidy up where the run is packed already. Raises ``Locked`` while the run is being recorded, and
    ``DataError`` where a file does not read back as it was written; the run is then as it was.
    """
    with locked(path):
        run = Run(path)
        if run.manifest.state != "packed" or again:
            _pack(run, progress)
        _sweep(run.path, Manifest.load(run.path))
    return Run(path)


def _pack(run: Run, progress: Progress | None) -> None:
    aside = run.path / _ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    manifest = run.manifest
    built = build(run, aside, generation=manifest.generation + 1, progress=progress)
    sync_folder(aside)
    for stored in (*built.streams.values(), *built.tables.values()):
        (aside / stored.file).rename(run.path / stored.file)
    sync_folder(run.path)
    _final(manifest, built).save(run.path)


def _final(manifest: Manifest, built: Built) -> Manifest:
    if manifest.state == "recording":
        manifest.exit = {"reason": "interrupted", "error": None, "signal": None, "status": None}
    manifest.state, manifest.generation = "packed", manifest.generation + 1
    manifest.streams, manifest.tables = built.streams, built.tables
    manifest.rails, manifest.facts, manifest.damage = built.rails, built.facts, built.damage
    manifest.stop_ns = built.stop_ns
    manifest.counts = {key: stored.rows for key, stored in built.streams.items()}
    return manifest


def _sweep(path: Path, manifest: Manifest) -> None:
    """Remove what the manifest of a packed run does not list."""
    listed = {stored.file for stored in (*manifest.streams.values(), *manifest.tables.values())}
    for file in path.glob("*.parquet"):
        if file.name not in listed:
            file.unlink()
    for leftover in path.glob(".manifest.json.*"):
        leftover.unlink()
    for folder in (path / _ASIDE, path / JOURNAL):
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)

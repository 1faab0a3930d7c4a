"""What an archive holds, from its manifests; kept in a cache that can always be made again.

``<archive>/.catalogue.json`` holds the gist of each manifest with the size and modification time it was read at.
Where the archive cannot be written there is no cache, and every manifest is read each time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melt_stream.errors import DataError
from melt_stream.lock import is_locked
from melt_stream.manifest import NAME, Manifest, replace
from melt_stream.run import run_folders

_CACHE = ".catalogue.json"
_VERSION = 1
_LEFT_OUT = ("recipe", "facts", "versions", "counts")
Entry = dict[str, Any]
"""A manifest as a dictionary, without what no view shows, and with ``path``."""


def overview(archive: Path) -> list[Entry]:
    """Return one row a run, oldest first: run, state, name, started, seconds, exit, tags, note."""
    return [
        {
            "run": entry["id"],
            "state": state_of(entry),
            "name": entry["name"],
            "started": datetime.fromtimestamp(entry["start_utc_ns"] / 1e9, UTC).isoformat(
                timespec="milliseconds"
            ),
            "seconds": seconds_of(entry),
            "exit": entry["exit"].get("reason"),
            "tags": entry["tags"],
            "note": entry["note"],
        }
        for entry in catalogue(archive)
    ]


def seconds_of(entry: Entry) -> float | None:
    """How long a run took; None until that is known."""
    return None if entry["stop_ns"] is None else (entry["stop_ns"] - entry["start_ns"]) / 1e9


def state_of(entry: Entry) -> str:
    """The run's state, with a look at its lock where the manifest is not final."""
    if entry["state"] == "recording" and not is_locked(Path(entry["path"])):
        return "interrupted"
    return str(entry["state"])


def catalogue(archive: Path) -> list[Entry]:
    """Return the entries of an archive's runs, oldest first; raises ``DataError`` for a damaged manifest."""
    kept = _load(archive)
    entries, changed = [], False
    for folder in run_folders(archive):
        seen = (folder / NAME).stat()
        stamp = [seen.st_mtime_ns, seen.st_size]
        if (known := kept.get(folder.name)) is None or known[0] != stamp:
            known, changed = [stamp, gist(Manifest.load(folder))], True
        entries.append((folder, known))
    if changed or len(entries) != len(kept):
        _save(archive, {folder.name: known for folder, known in entries})
    return [{**known[1], "path": str(folder)} for folder, known in entries]


def gist(manifest: Manifest) -> Entry:
    """What the views show of a manifest."""
    return {name: value for name, value in asdict(manifest).items() if name not in _LEFT_OUT}


def _load(archive: Path) -> dict[str, Any]:
    try:
        said = json.loads((archive / _CACHE).read_bytes())
        if said["version"] != _VERSION:
            return {}
        for entry in said["runs"].values():
            for stored in _stored(entry[1]):
                stored["columns"] = said["columns"][stored["columns"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return {}
    runs: dict[str, Any] = said["runs"]
    return runs


def _save(archive: Path, runs: dict[str, Any]) -> None:
    # Thousands of runs have the same few column lists: each stands in the file once.
    columns: dict[str, int] = {}
    slim = {}
    for name, (stamp, entry) in runs.items():
        copy = dict(entry)
        for part in ("streams", "tables"):
            copy[part] = {
                key: {**stored, "columns": columns.setdefault(json.dumps(stored["columns"]), len(columns))}
                for key, stored in entry[part].items()
            }
        slim[name] = [stamp, copy]
    said = {"version": _VERSION, "columns": [json.loads(text) for text in columns], "runs": slim}
    with suppress(OSError):  # a read-only archive, or a full disk: it goes without
        replace(archive / _CACHE, json.dumps(said).encode())


def _stored(entry: Entry) -> Iterable[Entry]:
    return (*entry["streams"].values(), *entry["tables"].values())


def entry_of(folder: Path) -> Entry:
    """Return the entry of one run; raises ``DataError`` for a damaged manifest."""
    if not (folder / NAME).is_file():
        raise DataError(f"{folder}: expected a run's folder, found no {NAME} in it")
    return {**gist(Manifest.load(folder)), "path": str(folder)}

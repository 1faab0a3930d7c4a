"""What an archive holds, from its manifests; kept in a cache that can always be made again.

``<archive>/.catalogue.json`` holds the gist of each manifest with the size and modification time it was read at.
Where the archive cannot be written there is no cache, and every manifest is read each time.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from melt_stream.lock import is_locked
from melt_stream.manifest import NAME, Stored, checked, replace

_CACHE = ".catalogue.json"
_VERSION = 2
_PARTS = ("streams", "tables")
_STORED = ("columns", *(f.name for f in fields(Stored) if f.name != "columns"))
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
    known: dict[str, Any] = {}
    for folder in _folders(archive):
        try:
            seen = os.stat(f"{archive}/{folder}/{NAME}")  # noqa: PTH116 - a Path costs as much as the look itself
        except (FileNotFoundError, NotADirectoryError):
            continue
        stamp = [seen.st_mtime_ns, seen.st_size]
        before = kept.get(folder)
        known[folder] = (
            before if before and before[0] == stamp else [stamp, gist(_manifest(archive / folder))]
        )
    if known != kept:
        _save(archive, known)
    return [{**entry, "path": f"{archive}/{folder}"} for folder, (_, entry) in known.items()]


def entry_of(folder: Path) -> Entry:
    """Return the entry of one run; raises ``DataError`` for a damaged manifest."""
    return {**gist(_manifest(folder)), "path": str(folder)}


def gist(manifest: Entry) -> Entry:
    """What the views show of a manifest, given as a dictionary."""
    return {name: value for name, value in manifest.items() if name not in _LEFT_OUT}


def _manifest(folder: Path) -> Entry:
    """A checked manifest as the dictionary it is in the file."""
    return checked(folder / NAME)[0]


def _folders(archive: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(archive) if not name.startswith("."))  # noqa: PTH208 - see above
    except FileNotFoundError:
        return []


def _load(archive: Path) -> dict[str, Any]:
    try:
        said = json.loads((archive / _CACHE).read_bytes())
        if said["version"] != _VERSION:
            return {}
        for _, entry in said["runs"].values():
            for part in _PARTS:
                entry[part] = {
                    key: dict(zip(_STORED, (said["columns"][row[0]], *row[1:]), strict=True))
                    for key, row in entry[part].items()
                }
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
        for part in _PARTS:
            copy[part] = {
                key: [columns.setdefault(stored["columns"], len(columns)), *(stored[n] for n in _STORED[1:])]
                for key, stored in entry[part].items()
            }
        slim[name] = [stamp, copy]
    said = {"version": _VERSION, "columns": list(columns), "runs": slim}
    with suppress(OSError):  # a read-only archive, or a full disk: it goes without
        replace(archive / _CACHE, json.dumps(said, separators=(",", ":")).encode())

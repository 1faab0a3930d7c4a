"""What an archive holds, from its manifests; kept in a cache that can always be made again.

``<archive>/.catalogue.json`` holds the gist of each manifest with the size and modification time it was read at: one
line of JSON for each part of the manifests, so that what a query does not need is not parsed. Where the archive
cannot be written there is no cache, and every manifest is read each time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from melt_stream.lock import is_locked
from melt_stream.manifest import NAME, Manifest, Stored, checked, replace

__all__ = [
    "Entry",
    "Outcome",
    "catalogue",
    "entry_of",
    "gist",
    "outcome_of",
    "overview",
    "seconds_of",
    "state_of",
]

Entry = dict[str, Any]
"""A manifest as a dictionary, without what no view shows, and with ``path``."""
Outcome = Literal["done", "failed", "interrupted", "recording"]
Stamps = dict[str, list[int]]
"""Modification time, size and inode of each run's manifest, by folder."""
_CACHE = ".catalogue.json"
_VERSION = 5
_LEFT_OUT = ("recipe", "facts", "versions", "counts")
_KEPT = tuple(f.name for f in fields(Manifest) if f.name not in _LEFT_OUT)
_ALWAYS = ("id", "state", "start_ns", "start_utc_ns")
_STORED = ("columns", *(f.name for f in fields(Stored) if f.name != "columns"))
_TABLES = "tables."
_OVERVIEW = ("name", "stop_ns", "exit", "tags", "note")


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
        for entry in catalogue(archive, _OVERVIEW)
    ]


def seconds_of(entry: Entry) -> float | None:
    """How long a run took; None until that is known."""
    return None if entry["stop_ns"] is None else (entry["stop_ns"] - entry["start_ns"]) / 1e9


def state_of(entry: Entry) -> str:
    """The run's state, with a look at its lock where the manifest is not final."""
    if entry["state"] == "recording" and not is_locked(Path(entry["path"])):
        return "interrupted"
    return str(entry["state"])


def outcome_of(entry: Entry) -> Outcome:
    """What became of a run: ``done`` is one that ended by itself, without an error and with its command's blessing.

    Ended by a signal or with its process, also when it was packed since, it is ``interrupted``.
    """
    said = entry["exit"]
    if state_of(entry) == "recording":
        return "recording"
    if said.get("signal") or said.get("reason") in {None, "interrupted"}:
        return "interrupted"
    return "failed" if said.get("error") or said.get("status") else "done"


def catalogue(archive: Path, parts: Collection[str] | None = None) -> list[Entry]:
    """Return the entries of an archive's runs, oldest first; raises ``DataError`` for a damaged manifest.

    Where not all is needed, ``parts`` names what is: keys of the manifest, and ``tables.<name>`` for one table each.
    Who, when, where and in which state a run is, is always there; all is where the cache had to be renewed.
    """
    stamps, cache = _stamps(archive), _load(archive)
    if cache is not None and cache.stamps == stamps:
        with suppress(*_DAMAGE):
            return _placed(archive, cache.entries(parts))
    entries = _renewed(archive, stamps, cache)
    with suppress(OSError):  # a read-only archive, or a full disk: it goes without
        replace(archive / _CACHE, _lines(stamps, list(entries.values())))
    return _placed(archive, entries)


def entry_of(folder: Path) -> Entry:
    """Return the entry of one run; raises ``DataError`` for a damaged manifest."""
    return {**gist(checked(folder / NAME)[1]), "path": str(folder)}


def gist(manifest: Manifest) -> Entry:
    """What the views show of a manifest."""
    entry = {name: getattr(manifest, name) for name in _KEPT}
    for part in ("streams", "tables"):
        entry[part] = {key: vars(stored) for key, stored in entry[part].items()}
    return entry


def _stamps(archive: Path) -> Stamps:
    found: Stamps = {}
    for folder in _folders(archive):
        try:
            seen = os.stat(f"{archive}/{folder}/{NAME}")  # noqa: PTH116 - a Path costs as much as the look itself
        except (FileNotFoundError, NotADirectoryError):
            continue
        found[folder] = [seen.st_mtime_ns, seen.st_size, seen.st_ino]
    return found


def _folders(archive: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(archive) if not name.startswith("."))  # noqa: PTH208 - see above
    except FileNotFoundError:
        return []


def _renewed(archive: Path, stamps: Stamps, cache: _Cache | None) -> dict[str, Entry]:
    """Every entry: the cache's where the manifest is the same, else read now."""
    same: dict[str, Entry] = {}
    if cache is not None:
        with suppress(*_DAMAGE):
            before = cache.entries(None)
            same = {folder: before[folder] for folder in stamps if cache.stamps.get(folder) == stamps[folder]}
    return {folder: same.get(folder) or gist(checked(archive / folder / NAME)[1]) for folder in stamps}


def _placed(archive: Path, entries: Mapping[str, Entry]) -> list[Entry]:
    for folder, entry in entries.items():
        entry["path"] = f"{archive}/{folder}"
    return list(entries.values())


_DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass
class _Cache:
    """A cache as it is in the file: its first line, and the others as they are."""

    stamps: Stamps
    columns: list[str]
    """Thousands of runs have the same few column lists: each stands in the file once."""
    lines: dict[str, bytes]
    """For each part, the JSON list of what the runs have of it; null where a run lacks that table."""

    def entries(self, parts: Collection[str] | None) -> dict[str, Entry]:
        """Return the entries by folder, with these parts or all; raises one of ``_DAMAGE`` for what it cannot read."""
        if parts is None:
            parts = self.lines.keys()
        entries: dict[str, Entry] = {folder: {"tables": {}} for folder in self.stamps}
        for part in {*_ALWAYS, *parts} & self.lines.keys():
            self._fill(entries, part, json.loads(self.lines[part]))
        return entries

    def _fill(self, entries: Mapping[str, Entry], part: str, values: list[Any]) -> None:
        is_table, table = part.startswith(_TABLES), part.removeprefix(_TABLES)
        for entry, value in zip(entries.values(), values, strict=True):
            if part == "streams":
                entry[part] = {key: self._stored(row) for key, row in value.items()}
            elif not is_table:
                entry[part] = value
            elif value is not None:
                entry["tables"][table] = self._stored(value)

    def _stored(self, row: list[Any]) -> dict[str, Any]:
        return dict(zip(_STORED, (self.columns[row[0]], *row[1:]), strict=True))


def _load(archive: Path) -> _Cache | None:
    try:
        head, *lines = (archive / _CACHE).read_bytes().split(b"\n")
        said = json.loads(head)
        if said["version"] != _VERSION:
            return None
        return _Cache(said["stamps"], said["columns"], dict(zip(said["parts"], lines, strict=True)))
    except (OSError, *_DAMAGE):
        return None


def _lines(stamps: Stamps, entries: list[Entry]) -> bytes:
    columns: dict[str, int] = {}

    def slim(stored: Mapping[str, Any] | None) -> list[Any] | None:
        if stored is None:
            return None
        known = columns.setdefault(stored["columns"], len(columns))
        return [known, *(stored[name] for name in _STORED[1:])]

    parts = {name: [entry[name] for entry in entries] for name in _KEPT if name != "tables"}
    parts["streams"] = [{key: slim(s) for key, s in streams.items()} for streams in parts["streams"]]
    for table in sorted({table for entry in entries for table in entry["tables"]}):
        parts[f"{_TABLES}{table}"] = [slim(entry["tables"].get(table)) for entry in entries]
    head = {"version": _VERSION, "stamps": stamps, "columns": list(columns), "parts": list(parts)}
    return "\n".join(json.dumps(line, separators=(",", ":")) for line in (head, *parts.values())).encode()

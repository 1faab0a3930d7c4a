"""A run's manifest: everything about a run but its rows, in one JSON file that is replaced atomically."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from melt_stream.errors import DataError

FORMAT = 1
"""Version of the folder's layout; a reader refuses a newer one."""
NAME = "manifest.json"
State = Literal["recording", "finished", "packed"]
Fields = dict[str, Any]


@dataclass
class Stored:
    """One Parquet file of a packed run."""

    file: str
    """Its name in the run's folder."""
    rows: int
    columns: str
    """``name TYPE unit`` of each column, in order, with commas between: SQL's types, and no unit where there is none."""
    instance: str = ""
    stream: str = ""
    device: str = ""
    role: str = ""
    clock: str = ""
    lost_rows: int | None = 0
    """Rows known to be lost; None where some were and nobody knows how many."""
    start_ns: int | None = None
    """First and last ``t_ns``, since the run's start; None where there are no rows."""
    stop_ns: int | None = None

    def __post_init__(self) -> None:
        said: list[Any] = [self.file, self.columns]
        if not all(isinstance(text, str) for text in said):
            raise TypeError(f"expected a file's name and columns as text, got {said[0]!r} and {said[1]!r}")


@dataclass
class Manifest:
    """What is known of a run; ``load`` and ``save`` keep it in the run's folder."""

    id: str
    state: State
    start_ns: int
    """Host monotonic time that every derived time counts from; 0 in an imported run."""
    start_utc_ns: int
    """The wall clock at that moment, for display."""
    stop_ns: int | None = None
    """Host monotonic time of the end; None until known."""
    format: int = FORMAT
    name: str = ""
    """What the recipe calls it."""
    imported: str = ""
    """The importer that made it, empty for a recorded run."""
    cell: str = ""
    """Id of the study's cell that this run fills: a hash of its canonical configuration."""
    study: Fields = field(default_factory=dict)
    """Of a study's run: its ``name``, the cell's ``points`` by axis, ``repetition`` (from 1), ``attempt`` (from 1), ``warmup``,
    the ``wanted`` repetitions; ``failure``, the kind of failure, where it failed; ``cooldown``, how the wait before it went."""
    host: Fields = field(default_factory=dict)
    devices: Fields = field(default_factory=dict)
    """What each device of the recipe said that it is, by name."""
    conditions: Fields = field(default_factory=dict)
    """What the recipe says of the surroundings: values, and tables of values by device."""
    versions: dict[str, str] = field(default_factory=dict)
    recipe: Fields = field(default_factory=dict)
    models: dict[str, Fields] = field(default_factory=dict)
    """By instance: the artefact of the zoo that it ran, with its quantisation, sha256 and recipe."""
    rails: list[Fields] = field(default_factory=list)
    facts: list[Fields] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Rows written of each stream, said by the journal when it ends."""
    exit: Fields = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    note: str = ""
    damage: dict[str, str] = field(default_factory=dict)
    """What was wrong with a stream's journal when it was packed."""
    generation: int = 0
    """How often derived data was made; 0 until packed."""
    streams: dict[str, Stored] = field(default_factory=dict)
    tables: dict[str, Stored] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a run folder's manifest; raises ``DataError`` where it is damaged or of a newer format."""
        return checked(folder / NAME)[1]

    def save(self, folder: Path) -> None:
        """Replace the folder's manifest: a reader sees the old or the new one, whatever happens."""
        replace(folder / NAME, json.dumps(asdict(self), indent=1).encode())


def checked(path: Path) -> tuple[Fields, Manifest]:
    """Read a manifest as the dictionary it is in the file, and as what it means; raises as ``Manifest.load``."""
    try:
        said = json.loads(path.read_bytes())
        if said["format"] > FORMAT:
            raise ValueError(f"format {said['format']}, newer than {FORMAT}: use a newer melt_stream")
        manifest = Manifest(**{name: value for name, value in said.items() if name in _KNOWN})
        for part in ("streams", "tables"):
            setattr(manifest, part, {name: Stored(**entry) for name, entry in said[part].items()})
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise DataError(f"{path}: expected a melt_stream manifest, got {exc}") from exc
    return said, manifest


_KNOWN = frozenset(f.name for f in fields(Manifest))


def replace(path: Path, data: bytes) -> None:
    """Replace a file's content atomically and durably."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

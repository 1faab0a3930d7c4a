"""An artefact: files of the zoo with the recipe that made them, as ``manifest.json`` in its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from melt_stream.errors import DataError
from melt_stream.manifest import replace

MANIFEST = "manifest.json"
FORMAT = 1
ORIGINAL = "original"
"""The variant that was pulled."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class File:
    """One file of an artefact."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artefact:
    """Files of a model in one variant: as pulled, converted or quantised."""

    model: str
    variant: str
    format: str
    """``gguf``, ``hf``, or what an external recipe calls it."""
    recipe: Mapping[str, Any]
    """Operation, tool, version, arguments, inputs (sha256 by file), seconds, peak_memory, fallbacks, loss: where it is from."""
    licence: Mapping[str, Any]
    header: Mapping[str, Any] | None = None
    """What a GGUF file says of itself, see ``header.Header``; None for other formats."""
    files: tuple[File, ...] = ()
    folder: Path = field(default=Path(), compare=False)

    @property
    def name(self) -> str:
        """``NAME`` of what was pulled, else ``NAME/VARIANT``."""
        return self.model if self.variant == ORIGINAL else f"{self.model}/{self.variant}"

    @property
    def reference(self) -> str:
        """As a recipe names it."""
        return f"zoo:{self.name}"

    @property
    def path(self) -> Path:
        """What a runtime loads: the file, the first of several GGUF files, or the folder of another format."""
        return self.folder / self.files[0].name if self.format == "gguf" else self.folder

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """Of the file; of several, that of the list of theirs (``sha256sum``'s lines, sorted by name)."""
        if len(self.files) == 1:
            return self.files[0].sha256
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def quantisation(self) -> str:
        """As the file says, such as ``Q4_0``; empty where it does not."""
        return str((self.header or {}).get("quantisation", ""))

    def facts(self) -> dict[str, Any]:
        """What a run's manifest keeps of the model that it used."""
        header = self.header or {}
        kept = (
            "quantisation",
            "bits_per_weight",
            "weight_bytes",
            "kv_bytes_per_token",
            "parameters",
            "architecture",
        )
        return {
            "model": self.model, "variant": self.variant, "format": self.format, "sha256": self.sha256,
            "bytes": self.bytes, **{name: header.get(name) for name in kept}, "recipe": dict(self.recipe),
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        said = {"format_version": FORMAT, **asdict(self)}
        del said["folder"]
        replace(folder / MANIFEST, json.dumps(said, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Artefact:
        """Read a folder's manifest; raises ``DataError`` where it is damaged, ``FileNotFoundError`` where there is none."""
        path = folder / MANIFEST
        try:
            said = json.loads(path.read_bytes())
            if said.pop("format_version") > FORMAT:
                raise ValueError("a newer format: use a newer melt_stream")
            files = tuple(File(**file) for file in said.pop("files"))
            return cls(**said, files=files, folder=folder)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise DataError(
                f"{path}: expected the manifest of an artefact, got {exc}; remove its folder, and make it again"
            ) from exc


def hashed(name: str, path: Path) -> File:
    """Read a file and say what it holds."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        while data := file.read(_BLOCK):
            digest.update(data)
            count += len(data)
    return File(name, digest.hexdigest(), count)

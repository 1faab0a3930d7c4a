"""Which models there are: TOML files, the packaged ``models.toml`` first and the user's own after it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from melt_stream.errors import ConfigError
from melt_stream.plugins import configure, nearest

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
OWN = "models.toml"
"""The user's own models, in the zoo's folder."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Licence:
    """The terms a model comes with."""

    name: str
    """An SPDX identifier, or what the terms are called."""
    url: str = ""
    gated: bool = False
    """Its files are given only to who has accepted the terms, at ``url``, with an account."""


@dataclass(frozen=True)
class Source:
    """Where a model's files are: one of ``hub``, ``package`` and ``path``."""

    hub: str = ""
    """Repository on the Hugging Face hub, ``owner/name``."""
    package: str = ""
    """Import name of a Python package that ships the file."""
    path: str = ""
    """A file or folder on this machine."""
    files: list[str] = field(default_factory=list)
    """Names, or patterns such as ``*.safetensors``; none for a ``path`` that is a file."""
    revision: str = "main"
    """Of the hub's repository: a branch, a tag or a commit."""
    sha256: dict[str, Sha256] = field(default_factory=dict)
    """By file, where it is known; what the hub or the first pull says is kept besides."""

    def __post_init__(self) -> None:
        said = [key for key in ("hub", "package", "path") if getattr(self, key)]
        if len(said) != 1:
            raise ValueError(f"expected one of hub, package, path, got {', '.join(said) or 'none'}")
        if self.path == "" and not self.files:
            raise ValueError(f"files: expected the files to take from {said[0]}, got none")

    def __str__(self) -> str:
        where = self.hub or self.package or self.path
        kind = "hub" if self.hub else "package" if self.package else "path"
        return f"{kind} {where}"


@dataclass(frozen=True)
class About:
    """What is known of a model besides its terms and its source."""

    family: str
    parameters: PositiveInt
    """Nominal; ``melt-stream zoo info`` counts them in a file."""
    context: PositiveInt
    """Tokens it was trained for."""
    template: str = ""
    """Name of the chat template; a GGUF file carries the text."""
    format: Literal["gguf", "hf"] = "gguf"
    """``hf``: a folder of safetensors, which ``melt-stream zoo convert`` turns into GGUF."""
    paper: bool = False
    """One of the seven that the MELT paper measured."""
    note: str = ""


@dataclass(frozen=True)
class Model:
    """One model of the registry."""

    name: str
    about: About
    licence: Licence
    source: Source


def read(own: Iterable[Path] = ()) -> dict[str, Model]:
    """Return the models by name, the packaged ones and those of ``own``; a later file's entry takes an earlier one's place.

    Raises ``ConfigError``, which names the file and the key, for what is not as it should be.
    """
    packaged = (resources("melt_stream.harness.zoo") / OWN).read_text(encoding="utf-8")
    models = parse(packaged, "the packaged models.toml")
    for path in own:
        try:
            models |= parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path}: expected a TOML file of models, got {exc}") from exc
    return models


def parse(text: str, where: str) -> dict[str, Model]:
    """Return the models of one file; raises as ``read``."""
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where}: expected TOML, got {exc}") from exc
    return {name: _model(name, entry, f"{where}: {name}") for name, entry in said.items()}


def named(models: Mapping[str, Model], name: str) -> Model:
    """Return one model; raises ``ConfigError``, which names the nearest, where there is none."""
    if name not in models:
        raise ConfigError(
            f"expected a model of the zoo, got {name!r}; {nearest(name, models)} Your own stand in {OWN} of the zoo's folder"
        )
    return models[name]


def _model(name: str, entry: Any, where: str) -> Model:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of a-z, 0-9 and . _ -, got {name!r}")
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected a table, got {entry!r}")
    parts = {"licence": Licence, "source": Source}
    for key in parts:
        if not isinstance(entry.get(key), dict):
            raise ConfigError(
                f"{where}.{key}: expected a table, got {entry.get(key)!r}; a model's name with a dot in it needs quotes"
            )
    about = configure(About, {key: value for key, value in entry.items() if key not in parts}, where)
    licence, source = (configure(cls, entry[key], f"{where}.{key}") for key, cls in parts.items())
    return Model(name, about, licence, source)

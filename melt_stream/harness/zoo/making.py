"""An artefact is made once: the same operation on the same input is found, and a name never changes what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from melt_stream.clock import utc_ns
from melt_stream.errors import ConfigError
from melt_stream.harness.zoo import header
from melt_stream.harness.zoo.artefact import Artefact
from melt_stream.harness.zoo.store import Store, usable

Made = tuple[Artefact, Mapping[str, Path]]
"""What it is, and its files by name; they lie in the folder that was given."""
SAME = ("operation", "source", "to", "inputs", "command")
"""What of a recipe says what is made; the tool's version, the time and the memory say how it went."""


def once(
    store: Store, model: str, variant: str, wanted: Mapping[str, Any], work: Callable[[Path], Made]
) -> Artefact:
    """Return the artefact that ``wanted`` describes, made by ``work`` in an empty folder where it is not there yet.

    Two processes that want it at once: one makes it, the other waits and finds it. Where ``work`` fails, nothing is
    left. Raises ``ConfigError`` where the name is taken by what was made otherwise.
    """
    with store.making(model, variant):
        if (found := store.get(model, variant)) is not None:
            return usable(_same(found, wanted))
        with store.workspace() as folder:
            artefact, files = work(folder)
            return store.add(artefact, files)


def recipe(wanted: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """Return a recipe: what was wanted, how it went, and when."""
    return {**wanted, **how, "made_utc_ns": utc_ns()}


def inputs(source: Artefact) -> dict[str, str]:
    """Return the sha256 of each file of an artefact that another is made of."""
    return {file.name: file.sha256 for file in source.files}


def described(files: Mapping[str, Path]) -> tuple[dict[str, Any], list[header.Tensor]]:
    """Read the header of a model's GGUF files: as plain data, and its tensors."""
    found, tensors = header.read([path for _, path in sorted(files.items())])
    return vars(found), tensors


def _same(found: Artefact, wanted: Mapping[str, Any]) -> Artefact:
    differs = [key for key in (*SAME, "tool") if key in wanted and found.recipe.get(key) != wanted[key]]
    if not differs:
        return found
    key = differs[0]
    raise ConfigError(
        f"{found.reference}: expected to make it with {key} = {wanted[key]!r}, but it is there already with "
        f"{found.recipe.get(key)!r}; remove it first: melt-stream zoo rm {found.name}"
    )

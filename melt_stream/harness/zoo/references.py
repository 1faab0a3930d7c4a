"""``zoo:NAME`` and ``zoo:NAME/Q4_0``: references to models, replaced by paths where a recipe is planned."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from melt_stream import recipe as recipes
from melt_stream.errors import ConfigError
from melt_stream.harness.zoo import registry
from melt_stream.harness.zoo.artefact import ORIGINAL, Artefact
from melt_stream.harness.zoo.store import Store, usable
from melt_stream.recipe import Plan, Recipe

SCHEME = "zoo:"
VARIANT = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
KEY = "model"
"""The key of an entry that may name a model of the zoo."""


@dataclass(frozen=True)
class Reference:
    """A model of the zoo, in a variant; as pulled where none is said."""

    model: str
    variant: str = ORIGINAL

    @classmethod
    def parse(cls, text: str) -> Reference:
        """``zoo:NAME`` or ``zoo:NAME/VARIANT``, with or without ``zoo:``; raises ``ConfigError``."""
        model, slash, variant = text.removeprefix(SCHEME).partition("/")
        if not registry.NAME.fullmatch(model) or (slash and not re.match(VARIANT, variant)):
            raise ConfigError(
                f"expected zoo:NAME or zoo:NAME/VARIANT, such as zoo:smollm2-135m/Q4_0, got {text!r}"
            )
        return cls(model, variant or ORIGINAL)

    @property
    def name(self) -> str:
        """Without ``zoo:``."""
        return self.model if self.variant == ORIGINAL else f"{self.model}/{self.variant}"


def find(store: Store, reference: Reference) -> Artefact | None:
    """Return what a reference means where it is there; a quantisation may be said in any case."""
    found = store.find(reference.model, reference.variant) or store.find(
        reference.model, reference.variant.upper()
    )
    return None if found is None else usable(found)


def there(store: Store, text: str) -> Artefact:
    """Return what a reference means; ``ConfigError`` says what to do where it is not there. Nothing is pulled."""
    reference = Reference.parse(text)
    if (found := find(store, reference)) is not None:
        return found
    if store.get(reference.model, ORIGINAL) is None:
        todo = f"melt-stream zoo pull {reference.model}"
    else:
        todo = f"melt-stream zoo quantize {reference.model} --to {reference.variant}"
    raise ConfigError(f"{text}: expected it in the zoo at {store.root}, got none; try: {todo}")


def ensure(
    text: str,
    *,
    store: Store | None = None,
    models: Mapping[str, registry.Model] | None = None,
    download: bool = False,
    requantise: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Artefact:
    """Return the artefact of a reference, and make it first where it is not there; blocks, so call it in a thread from Trio.

    What a package or a path holds is taken into the zoo; the hub is asked only with ``download``. ``zoo:NAME/Q4_0`` is
    quantised, also of what is quantised already unless ``requantise`` is false: the recipe says it, and ``say`` is told.
    Raises what ``pull`` and ``quantise`` raise.
    """
    from melt_stream.harness.zoo.pull import pull
    from melt_stream.harness.zoo.quantise import quantise

    store = store or Store(say=say)
    reference = Reference.parse(text)
    if (found := find(store, reference)) is not None:
        return found
    if store.get(reference.model, ORIGINAL) is None:
        model = registry.named(models if models is not None else known(store), reference.model)
        if model.source.hub and not download:
            return there(store, text)
        say(f"pulling {model.name} from {model.source}")
        pull(store, model)
    if (found := find(store, reference)) is None and reference.variant != ORIGINAL:
        say(f"quantising {reference.model} to {reference.variant}")
        found = quantise(store, reference.model, reference.variant, requantise=requantise)
        if loss := found.recipe.get("loss"):
            say(f"{found.reference}: {loss}")
    return found or there(store, text)


def known(store: Store, more: tuple[Path, ...] = ()) -> dict[str, registry.Model]:
    """Return the registry: the packaged models, those in the zoo's folder, and those of further files."""
    own = store.root / registry.OWN
    return registry.read([*([own] if own.exists() else []), *more])


def named(recipe: Recipe) -> list[str]:
    """Return the references that a recipe's entries make."""
    said = (entry.get(KEY) for entry in (recipe.collectors | recipe.workloads).values())
    return [text for text in said if _is_reference(text)]


def planned(recipe: Recipe, where: str, store: Store | None = None) -> Plan:
    """Plan a recipe whose entries may say ``model = "zoo:NAME/Q4_0"``: they get the file's path.

    The plan keeps the recipe as it was written, and what the models are in ``models``, which the run's manifest takes.
    Raises ``ConfigError`` where an artefact is not in the zoo, which tells the command that makes it.
    """
    store = store or Store()
    models: dict[str, Artefact] = {}

    def resolved(entries: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: _resolved(store, name, entry, where, models) for name, entry in entries.items()}

    paths = dataclasses.replace(
        recipe, collectors=resolved(recipe.collectors), workloads=resolved(recipe.workloads)
    )
    plan = recipes.plan(paths, where)
    return dataclasses.replace(
        plan, recipe=recipe, models={name: one.facts() for name, one in models.items()}
    )


def _resolved(
    store: Store, name: str, entry: dict[str, Any], where: str, models: dict[str, Artefact]
) -> dict[str, Any]:
    said = entry.get(KEY)
    if not _is_reference(said):
        return entry
    try:
        models[name] = there(store, said)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {name}.{KEY}: {exc}") from exc
    return {**entry, KEY: str(models[name].path)}


def _is_reference(said: Any) -> TypeGuard[str]:
    return isinstance(said, str) and said.startswith(SCHEME)

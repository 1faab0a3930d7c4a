"""The one place where a cell's configuration becomes a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melt_stream import recipe as recipes
from melt_stream.harness.placed import placed
from melt_stream.recipe import Plan


def plan_of(configuration: Mapping[str, Any], where: str) -> Plan:
    """Make the plan of a configuration: a recipe's tables, with every override laid over them.

    Raises ``ConfigError`` for all that can be known before anything starts.
    """
    return recipes.plan(recipes.parse(configuration, where), where)


def check(configuration: Mapping[str, Any], where: str) -> None:
    """Raise ``ConfigError`` where a plan cannot be made, or its devices cannot."""
    placed(plan_of(configuration, where))

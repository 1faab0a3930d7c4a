"""A point laid over a study's file: tables are merged, key by key; anything else takes the place of what was there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.plugins import nearest

Table = dict[str, Any]
REMOVE = "remove"
"""Key of a point: dotted keys of what is taken away first, so that a table can be replaced whole."""


def nested(point: Mapping[str, Any], where: str) -> Table:
    """Return a point with its quoted dotted keys as the tables that they stand for: ``"a.b" = 1`` is ``a.b = 1``.

    Raises ``ConfigError`` where a key is said twice.
    """
    made: Table = {}
    for key, value in point.items():
        *parents, last = key.split(".")
        inside = made
        for at, parent in enumerate(parents):
            inside = inside.setdefault(parent, {})
            if not isinstance(inside, dict):
                raise _twice(where, ".".join(parents[: at + 1]))
        new = nested(value, f"{where}.{key}") if isinstance(value, Mapping) else value
        if last in inside and not (isinstance(new, dict) and isinstance(inside[last], dict)):
            raise _twice(where, key)
        inside[last] = laid(inside[last], new) if last in inside else new
    return made


def laid(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Return ``base`` with ``over`` laid over it; neither is changed."""
    made = dict(base)
    for key, value in over.items():
        below = made.get(key)
        if isinstance(value, Mapping):
            made[key] = laid(below if isinstance(below, Mapping) else {}, value)
        else:
            made[key] = deepcopy(value)
    return made


def without(base: Mapping[str, Any], key: str, where: str) -> Table:
    """Return ``base`` without what stands at a dotted key; ``ConfigError`` names the nearest key where nothing does."""
    head, _, rest = key.partition(".")
    if head not in base or (rest and not isinstance(base[head], Mapping)):
        raise ConfigError(
            f"{where}.{REMOVE}: expected the key of something that is there, got {head!r}; {nearest(head, base)}"
        )
    if rest:
        return {**base, head: without(base[head], rest, where)}
    return {name: value for name, value in base.items() if name != head}


def leaves(table: Mapping[str, Any], before: Sequence[str] = ()) -> Iterator[str]:
    """Yield the dotted keys of what a table says; an empty table counts as a thing that is said."""
    for key, value in table.items():
        path = [*before, key]
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield ".".join(path)


def _twice(where: str, key: str) -> ConfigError:
    return ConfigError(f"{where}: expected each key once, got {key!r} twice")

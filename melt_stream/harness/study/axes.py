"""The axes of a study: named points, each a table that is laid over the study's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.study.overlay import REMOVE, Table, nested
from melt_stream.plugins import nearest
from melt_stream.stream import NAME

Points = dict[str, str]
"""A point's name by axis."""
_SHORT = {"key", "values"}


@dataclass(frozen=True)
class Axis:
    """One thing that varies."""

    name: str
    points: dict[str, Table]
    """What is laid over the file, by the point's name."""
    removed: dict[str, list[str]]
    """The dotted keys that each point takes away first."""


def axis(name: str, said: Mapping[str, Any], where: str) -> Axis:
    """Read an axis: its points by name, or ``key`` (one dotted key, or several) and the ``values`` that it takes.

    Raises ``ConfigError``.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected an axis's name [a-z][a-z0-9_]*, got {name!r}")
    points = _of_values(said, where) if _SHORT & said.keys() and not _all_tables(said) else dict(said)
    if not points:
        raise ConfigError(f"{where}: expected at least one point, got none")
    if wrong := [point for point, table in points.items() if not isinstance(table, Mapping)]:
        raise ConfigError(
            f"{where}.{wrong[0]}: expected a table of overrides, got {points[wrong[0]]!r}; for one key write "
            'key = "workloads.llama.threads" and values = [...]'
        )
    return Axis(
        name,
        {
            point: nested({k: v for k, v in table.items() if k != REMOVE}, f"{where}.{point}")
            for point, table in points.items()
        },
        {point: _removed(table.get(REMOVE, []), f"{where}.{point}") for point, table in points.items()},
    )


def text_of(value: Any) -> str:
    """Return the name of the point of a value: ``4``, ``true``, ``q4_0``, a list as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


@dataclass(frozen=True)
class Rule:
    """Which cells are meant: for each axis named, the points that it may be at."""

    points: dict[str, tuple[str, ...]]

    def meets(self, points: Points) -> bool:
        """Whether a cell with these points is meant."""
        return all(points[name] in some for name, some in self.points.items())


def rule(said: Mapping[str, Any], axes: Sequence[Axis], where: str) -> Rule:
    """Read ``axis = point`` or ``axis = [point, ...]``; ``ConfigError`` names the nearest axis or point."""
    known = {one.name: one for one in axes}
    made: dict[str, tuple[str, ...]] = {}
    for name, value in said.items():
        if name not in known:
            raise ConfigError(f"{where}: expected an axis, got {name!r}; {nearest(name, known)}")
        made[name] = tuple(map(text_of, value if isinstance(value, list) else [value]))
        points = known[name].points
        if wrong := [point for point in made[name] if point not in points]:
            raise ConfigError(
                f"{where}.{name}: expected a point of the axis {name}, got {wrong[0]!r}; {nearest(wrong[0], points)}"
            )
    return Rule(made)


def _all_tables(said: Mapping[str, Any]) -> bool:
    return all(isinstance(value, Mapping) for value in said.values())


def _of_values(said: Mapping[str, Any], where: str) -> dict[str, Table]:
    if unknown := sorted(said.keys() - _SHORT):
        raise ConfigError(
            f"{where}.{unknown[0]}: expected key and values alone, got {unknown[0]!r} beside them"
        )
    key, values = said.get("key"), said.get("values")
    keys = [key] if isinstance(key, str) else key
    if not keys or not isinstance(keys, list) or not all(isinstance(one, str) for one in keys):
        raise ConfigError(f"{where}.key: expected a dotted key, or a list of them, got {key!r}")
    if not isinstance(values, list):
        raise ConfigError(f"{where}.values: expected a list of values, got {values!r}")
    names = [text_of(value) for value in values]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{where}.values: expected each value once, got {twice[0]!r} twice")
    return {name: dict.fromkeys(keys, value) for name, value in zip(names, values, strict=True)}


def _removed(said: Any, where: str) -> list[str]:
    if not isinstance(said, list) or not all(isinstance(key, str) for key in said):
        raise ConfigError(f"{where}.{REMOVE}: expected a list of dotted keys, got {said!r}")
    return said

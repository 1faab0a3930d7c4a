"""A study's file: a recipe with a table ``[study]`` of axes and rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.study.axes import Axis, Rule, axis, rule
from melt_stream.harness.study.cells import STUDY, Cell, cell, spanned
from melt_stream.harness.study.rules import OF_A_CELL, StudyTable
from melt_stream.plugins import configure
from melt_stream.recipe import load_toml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Study:
    """A study, checked: every cell can be planned."""

    name: str
    table: StudyTable
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]

    def only(self, said: Iterable[str]) -> tuple[Cell, ...]:
        """Return the cells that meet all of ``axis=point``; of several points of one axis, any. Raises ``ConfigError``."""
        wanted: dict[str, list[str]] = {}
        for text in said:
            name, equals, point = text.partition("=")
            if not equals:
                raise ConfigError(f"--only {text}: expected axis=point, got no '='")
            wanted.setdefault(name, []).append(point)
        meant = rule(wanted, self.axes, "--only")
        return tuple(one for one in self.cells if meant.meets(one.points))


def is_study(data: Mapping[str, Any]) -> bool:
    """Whether a file that has been read is a study's."""
    return STUDY in data


def read(path: Path) -> Study:
    """Read a study's file. Raises ``ConfigError`` that names the file, the axis, the point, the key and the nearest valid one."""
    return study_of(load_toml(path), path)


def study_of(data: Mapping[str, Any], path: Path) -> Study:
    """Check a study that was read from ``path``, after which it is called where it has no ``name``."""
    where, said = str(path), data.get(STUDY)
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: expected a study's table [{STUDY}], got {said!r}")
    table: StudyTable = configure(StudyTable, said, f"{where}.{STUDY}")
    name = data.get("name") or path.stem
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: expected a study's name of letters, digits, '.', '_' and '-', got {name!r}; set name"
        )
    axes = tuple(axis(key, points, f"{where}.{STUDY}.axes.{key}") for key, points in table.axes.items())
    included = _rules(table.include, axes, f"{where}.{STUDY}.include")
    excluded = _rules(table.exclude, axes, f"{where}.{STUDY}.exclude")
    base = {**data, "name": name, STUDY: {key: said[key] for key in said if key in OF_A_CELL}}
    cells = tuple(cell(base, axes, points, where) for points in spanned(axes, included, excluded))
    if not cells:
        raise ConfigError(f"{where}: expected a cell, got none: include and exclude leave nothing")
    _check_ids(cells, where)
    return Study(name, table, axes, cells)


def _rules(said: Sequence[Mapping[str, Any]], axes: Sequence[Axis], where: str) -> list[Rule]:
    return [rule(one, axes, f"{where}[{number}]") for number, one in enumerate(said)]


def _check_ids(cells: Iterable[Cell], where: str) -> None:
    seen: dict[str, Cell] = {}
    for one in cells:
        if (twin := seen.setdefault(one.id, one)) is not one:
            raise ConfigError(
                f"{where}: expected cells that differ, got the same configuration for {twin.label} and {one.label}: "
                "a later axis lays over what an earlier one says"
            )

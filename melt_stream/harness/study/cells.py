"""The cells of a study: one for each choice of a point on every axis, with a configuration and an id of its own."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.study import planning
from melt_stream.harness.study.axes import Axis, Points, Rule
from melt_stream.harness.study.overlay import Table, laid, leaves, without
from melt_stream.harness.study.rules import OF_A_CELL, Rules
from melt_stream.plugins import configure, nearest

STUDY = "study"
LABELS = ("note", "tags")
"""Keys of a recipe that say nothing about what is measured: a cell is the same with others."""
MEASURED = ("before", "after", "cooldown")
"""Keys of the rules that do."""


@dataclass(frozen=True)
class Cell:
    """One configuration of a study."""

    id: str
    """A hash of the configuration, repetitions not included: runs carry it."""
    points: Points
    configuration: Table
    """A recipe's tables."""
    rules: Rules
    where: str
    """Of the study's file, for messages."""

    @property
    def label(self) -> str:
        """Its points, as people read them."""
        return label(self.points)


def label(points: Points) -> str:
    """``quantisation=q4_0 threads=2``; ``the only cell`` where there are no axes."""
    return " ".join(f"{axis}={point}" for axis, point in points.items()) or "the only cell"


def spanned(axes: Sequence[Axis], included: Sequence[Rule], excluded: Sequence[Rule]) -> Iterator[Points]:
    """Yield the points of each cell, the last axis varying fastest."""
    for chosen in itertools.product(*(one.points for one in axes)):
        points = dict(zip((one.name for one in axes), chosen, strict=True))
        wanted = not included or any(rule.meets(points) for rule in included)
        if wanted and not any(rule.meets(points) for rule in excluded):
            yield points


def cell(base: Mapping[str, Any], axes: Sequence[Axis], points: Points, where: str) -> Cell:
    """Lay a cell's points over the file, axis by axis, and check what comes out.

    Raises ``ConfigError`` that names the cell, the key and, where it was a point that said it, the axis and the point.
    """
    here = f"{where}, cell {label(points)}"
    try:
        said = _laid(base, axes, points, here)
        rules: Rules = configure(Rules, said.pop(STUDY), f"{here}: {STUDY}")
        rules.check(said, f"{here}: {STUDY}")
        planning.check(said, here)
    except ConfigError as exc:
        raise ConfigError(f"{exc}{_blame(axes, points, str(exc))}") from exc
    return Cell(cell_id(said, rules), points, said, rules, here)


def cell_id(configuration: Mapping[str, Any], rules: Rules) -> str:
    """Return the id of a configuration: 16 hex digits of the SHA-256 of it as sorted JSON. Nothing in it is normalised."""
    measured = {key: value for key, value in configuration.items() if key not in LABELS}
    around = {key: value for key in MEASURED if (value := getattr(rules, key))}
    text = json.dumps([measured, around], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _laid(base: Mapping[str, Any], axes: Sequence[Axis], points: Points, where: str) -> Table:
    made = dict(base)
    for one in axes:
        point = points[one.name]
        for key in one.removed[point]:
            made = without(made, key, f"{where}: axis {one.name}, point {point}")
        over = one.points[point]
        study = over.get(STUDY, {})
        if not isinstance(study, dict) or (unknown := sorted(study.keys() - OF_A_CELL)):
            wrong = unknown[0] if isinstance(study, dict) else str(study)
            raise ConfigError(
                f"{where}: axis {one.name}, point {point}: expected a key of {STUDY} that a point may override, "
                f"got {wrong!r}; {nearest(wrong, OF_A_CELL)}"
            )
        made = laid(made, over)
    return made


def _blame(axes: Sequence[Axis], points: Points, message: str) -> str:
    """Say which point set the key that a message names; nothing where none did."""
    for one in axes:
        for key in leaves(one.points[points[one.name]]):
            if f"{key}:" in message or f"{key}[" in message:
                return f" (axis {one.name}, point {points[one.name]})"
    return ""

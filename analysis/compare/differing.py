"""What differs between sides besides the results: recipe, environment, versions, rails. Named before any number is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melt_stream.analysis.compare.observed import Side
from melt_stream.manifest import Manifest

_CHANGING = frozenset({"host.boot_id"})
"""What differs with every start of the machine and says nothing."""
_OF_A_RAIL = ("boundary", "kind", "gain", "offset", "sample_period_ns", "estimated", "source")


@dataclass(frozen=True)
class Differing:
    """A setting, or a fact of the environment, whose values are not the same on all sides."""

    key: str
    values: tuple[str, ...]
    """One a side, in order; several of one side stand with `` | `` between them, and what is not told is ``-``."""


def differing(sides: Sequence[Side]) -> list[Differing]:
    """Return what differs, sorted by key."""
    told = [_of_side(side) for side in sides]
    keys = sorted({key for one in told for key in one})
    rows = [Differing(key, tuple(" | ".join(sorted(one.get(key, {"-"}))) for one in told)) for key in keys]
    return [row for row in rows if len(set(row.values)) > 1]


def _of_side(side: Side) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    each = [dict(_facts(run.manifest)) for run in side.runs]
    for key in {key for one in each for key in one}:
        found[key] = {one.get(key, "-") for one in each}
    return found


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    parts: dict[str, Any] = {"host": manifest.host, "devices": manifest.devices, "recipe": manifest.recipe}
    parts["versions"] = manifest.versions
    parts["rails"] = {
        f"{rail['sensor_of']}/{rail['name']}": {name: rail.get(name) for name in _OF_A_RAIL}
        for rail in manifest.rails
    }
    for key, value in _leaves("", parts):
        if key not in _CHANGING:
            yield key, value


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), inner)
    elif value not in (None, "", []):
        yield path, value if isinstance(value, str) else json.dumps(value, default=str)

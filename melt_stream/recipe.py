"""Recipes: one TOML file that says what to record, checked strictly before anything starts."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from melt_stream.errors import ConfigError
from melt_stream.marker import NAME as MARKER
from melt_stream.plugins import configure, load
from melt_stream.stream import NAME

VIEWS = frozenset(
    {"cells", "charge", "clocks", "conditions", "devices", "events", "factors", "gaps", "markers", "models", "op_shares", "ops", "oracles"}
    | {"phase_rails", "phases", "power", "qoe", "rails", "requests", "run", "runs", "streams", "sustained", "together", "tokens"}
)  # fmt: skip
"""Names of SQL views and of the engine's own streams: no collector instance may take one."""

Seconds = Annotated[float, Field(ge=0)]
Entry = dict[str, Any]
Condition = bool | int | float | str


@dataclass(frozen=True)
class Recipe:
    """What to record. Each field is a key of the file; an entry's own keys are the plug-in's fields."""

    collectors: dict[str, Entry] = field(default_factory=dict)
    """By instance name; ``kind`` names the plug-in where it is not the instance name, ``device`` what it measures."""
    workloads: dict[str, Entry] = field(default_factory=dict)
    """What is measured, run one after the other; the run ends when they have. Besides ``kind`` and ``device``, ``involves`` lists the other
    devices that have a part in its requests: each request's phases are theirs too."""
    name: str = ""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Ends the run after so long, whatever is still going."""
    baseline_s: Seconds = 0.0
    """Idle time measured before and after the workloads; net energy is less its mean power."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """How long the collectors have to give their first row."""
    marker: bool | dict[str, Any] = False
    """True, or a table of the fields of the workload ``marker``: it is played at the start and at the end, besides ``seconds``."""
    device: dict[str, Entry] = field(default_factory=dict)
    """How devices are reached, by name: ``adb = "serial"``, ``ssh = "user@host"``, ``local = "/bin/sh"``; sensors of files whose
    ``device`` is one of them are read there."""
    account: dict[str, str] = field(default_factory=dict)
    """By device: the rail, as ``<instance>.<stream>/<rail>``, whose joules are that device's total."""
    conditions: dict[str, Condition | dict[str, Condition]] = field(default_factory=dict)
    """What the surroundings are, in names of your own with the unit at their end: ``ambient_c = 23.5``, ``case = "none"``; what holds of
    one device alone, in a table of its name."""
    tags: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """A recipe with every plug-in made: nothing in it can fail for a wrong key any more."""

    recipe: Recipe
    collectors: dict[str, Any]
    workloads: dict[str, Any]
    devices: dict[str, str]
    marker: Any = None
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By instance: what is known of the model that it runs, for the run's manifest."""


def read(path: Path) -> Recipe:
    """Read a recipe; ``ConfigError`` names the file, the key's path and the nearest valid key."""
    return parse(load_toml(path), str(path))


def load_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file says, unchecked; ``ConfigError`` where there is none or it is no TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"expected a recipe at {path}, got {exc.strerror}; give the path of a TOML file"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path}: expected UTF-8 text, got a byte {exc.object[exc.start]:#x} at {exc.start}"
        ) from exc
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: expected TOML, got {exc}") from exc


def parse(data: Mapping[str, Any], where: str) -> Recipe:
    """Check a recipe that is already in memory."""
    recipe: Recipe = configure(Recipe, data, where)
    names = [*recipe.collectors, *recipe.workloads]
    if recipe.marker is not False and MARKER in names:
        raise ConfigError(f"{where}: expected no instance of that name beside marker = ..., got {MARKER!r}")
    for name in names:
        _check_name(name, names, where)
    for name, entry in recipe.workloads.items():
        _check_involved(recipe, entry, f"{where}: workloads.{name}.involves")
    for name in recipe.device:
        if not NAME.fullmatch(name) or name == "host":
            raise ConfigError(
                f"{where}: expected a device's name [a-z][a-z0-9_]* other than host, got {name!r}"
            )
    return recipe


def plan(recipe: Recipe, where: str) -> Plan:
    """Make every collector and workload of the recipe; ``ConfigError`` before anything starts."""
    mark = {} if recipe.marker is True else recipe.marker
    return Plan(
        recipe,
        {
            name: _make("melt_stream.collectors", name, entry, where)
            for name, entry in recipe.collectors.items()
        },
        {
            name: _make("melt_stream.workloads", name, entry, where)
            for name, entry in recipe.workloads.items()
        },
        {name: _device(entry) for name, entry in (recipe.collectors | recipe.workloads).items()}
        | ({} if mark is False else {MARKER: _device(mark)}),
        None if mark is False else _make("melt_stream.workloads", MARKER, {**mark, "kind": MARKER}, where),
    )


def _make(group: str, name: str, entry: Entry, where: str) -> Any:
    section = group.partition(".")[2]
    ours = {"kind", "device", *(["involves"] if section == "workloads" else [])}
    fields = {key: value for key, value in entry.items() if key not in ours}
    return configure(load(group, str(entry.get("kind", name))), fields, f"{where}: {section}.{name}")


def _device(entry: Entry) -> str:
    return str(entry.get("device", "host"))


def _check_involved(recipe: Recipe, entry: Entry, where: str) -> None:
    involved = entry.get("involves", [])
    known = sorted({*recipe.device, *(_device(one) for one in recipe.collectors.values())})
    if not isinstance(involved, list) or not all(one in known for one in involved):
        raise ConfigError(
            f"{where}: expected a list of devices that collectors measure, out of {known}, got {involved!r}"
        )


def _check_name(name: str, names: list[str], where: str) -> None:
    if not NAME.fullmatch(name) or name in VIEWS:
        raise ConfigError(
            f"{where}: expected an instance name [a-z][a-z0-9_]* that is no SQL view's, got {name!r}; "
            "write [collectors.other_name] with kind = the plug-in's name"
        )
    if names.count(name) > 1:
        raise ConfigError(
            f"{where}: expected unique instance names, got {name!r} as a collector and as a workload"
        )

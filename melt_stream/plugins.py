"""Plug-ins: found by entry point, listed without importing anything, made from checked values."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_type_hints

from melt_stream.errors import ConfigError

COLLECTORS, SINKS, WORKLOADS = "melt_stream.collectors", "melt_stream.sinks", "melt_stream.workloads"


def names(group: str) -> dict[str, EntryPoint]:
    """Return the plug-ins of a group (``melt_stream.collectors``, ...) by name, sorted; none is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def load(group: str, name: str) -> Any:
    """Import a plug-in by its name, or a class of the user's own by ``module.Class``.

    Raises ``ConfigError``, which names the nearest plug-in where there is none, or the package it lacks.
    """
    if "." in name:
        return _own(group, name)
    known = names(group)
    if (point := known.get(name)) is None:
        kind = group.rpartition(".")[2].removesuffix("s")
        raise ConfigError(f"expected a {kind}'s name, got {name!r}; {nearest(name, known)}")
    try:
        return point.load()
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{group} {name!r} needs {exc.name!r}, which is not installed; try: uv pip install {exc.name}"
        ) from exc


def _own(group: str, name: str) -> Any:
    """Import ``module.Class``, where a module may lie in the working folder."""
    module, _, attribute = name.rpartition(".")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as exc:
        raise ConfigError(
            f"{group}: expected a plug-in's name or module.Class, got {name!r}: {exc}; "
            f"is {module.partition('.')[0]}.py in {sys.path[0]}?"
        ) from exc
    finally:
        sys.path.pop(0)


def configure(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    """Make a dataclass from plain values, checked against its annotations.

    ``where`` is where the values come from, for messages. Raises ``ConfigError`` for an unknown key (naming the
    nearest), a missing one, a wrong type (text is no number) or a value out of range, with its path.
    """
    from pydantic import TypeAdapter, ValidationError

    fields = _fields(cls)
    if unknown := [key for key in values if key not in fields]:
        raise ConfigError(
            f"{where}.{unknown[0]}: expected a key of {cls.__name__}, got {unknown[0]!r}; {nearest(unknown[0], fields)}"
        )
    if missing := [name for name, field in fields.items() if _required(field) and name not in values]:
        raise ConfigError(f"{where}: expected {missing[0]!r}, got none; {cls.__name__} cannot do without it")
    checked, types = {}, get_type_hints(cls, include_extras=True)
    for name, value in values.items():
        try:
            # as JSON: strict about "50" for a number, yet a list does for a tuple and text for a path
            checked[name] = TypeAdapter(types[name]).validate_json(
                _json(value, f"{where}.{name}"), strict=True
            )
        except ValidationError as exc:
            raise ConfigError(_said(exc.errors()[0], f"{where}.{name}")) from exc
    try:
        return cls(**checked)
    except ValueError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value)
    except TypeError as exc:
        raise ConfigError(
            f"{where}: expected a number, text, true, false, a list or a table, got {value!r}"
        ) from exc


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _said(error: Mapping[str, Any], where: str) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    return f"{where}{path}: {error['msg'].lower()}, got {error['input']!r}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what was meant, perhaps: the known name that is like ``name``, else all there are."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(known) or 'none'}"

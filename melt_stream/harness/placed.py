"""Collectors and workloads where they belong: on their device, where the recipe says how that one is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from melt_stream.devices import Device, Place, Placeable, Sampled
from melt_stream.errors import ConfigError
from melt_stream.plugins import configure
from melt_stream.recipe import Plan, Recipe
from melt_stream.sensor import FileSensor

KINDS = {
    "adb": ("melt_stream.devices.adb", "Adb", "serial"),
    "local": ("melt_stream.devices.local", "Local", "shell"),
    "ssh": ("melt_stream.devices.ssh", "Ssh", "address"),
}
"""By the key that says how a device is reached: module, class, and the class's field that the key's value is for."""


def places(recipe: Recipe) -> dict[str, Place]:
    """Return the devices that a recipe says how to reach, by name. Raises ``ConfigError`` where an entry is wrong."""
    return {name: Place(device(name, entry)) for name, entry in recipe.device.items()}


def link(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a device is reached, for people: the key of its entry in a recipe, and that one's value."""
    kind = next(iter(KINDS.keys() & entry.keys()))
    return {"link": kind, "address": entry[kind]}


def placed(plan: Plan, places: Mapping[str, Place]) -> Plan:
    """Return the plan with what runs on one of ``places`` made to run there: sensors of files, and what is ``Placeable``."""

    def there(made: Mapping[str, Any]) -> dict[str, Any]:
        return {name: _at(one, places.get(plan.devices[name])) for name, one in made.items()}

    return replace(plan, collectors=there(plan.collectors), workloads=there(plan.workloads))


def device(name: str, entry: Mapping[str, Any]) -> Device:
    """Make a device of its entry in a recipe: ``adb = "serial"``, ``ssh = "user@host"`` or ``local = "/bin/sh"``, and more fields."""
    where = f"device.{name}"
    said = sorted(KINDS.keys() & entry.keys())
    if len(said) != 1:
        raise ConfigError(
            f"{where}: expected one of {', '.join(KINDS)} = ..., got {', '.join(said) or 'none'}"
        )
    module, cls, key = KINDS[said[0]]
    fields = {other: value for other, value in entry.items() if other not in KINDS}
    made: Device = configure(
        getattr(import_module(module), cls), {"name": name, key: entry[said[0]], **fields}, where
    )
    return made


def _at(collector: Any, place: Place | None) -> Any:
    if place is None:
        return collector
    if isinstance(collector, FileSensor):
        return Sampled(collector, place.device, place.boots)
    if isinstance(collector, Placeable):
        return collector.on(place)
    return collector  # a meter on our desk, say, of a phone that adb reaches

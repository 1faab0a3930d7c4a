"""``melt-stream collectors``: what can be plugged in, and its settings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

from cyclopts import Parameter

from melt_stream import plugins
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table
from melt_stream.errors import ConfigError

GROUPS = ("melt_stream.collectors", "melt_stream.workloads", "melt_stream.importers", "melt_stream.sinks")


def collectors(
    name: Annotated[str | None, Parameter(help="Tell the settings of this one.")] = None,
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """List collectors, workloads, importers and sinks without importing them; with a name, tell its settings."""
    listed = [
        {"name": entry, "kind": group.partition(".")[2].rstrip("s"), "module": point.module}
        for group in GROUPS
        for entry, point in plugins.names(group).items()
    ]
    if name is not None:
        _describe(name, [one for one in listed if one["name"] == name], options)
    elif options.json:
        print_json({"plugins": listed})
    else:
        print_table("", ["name", "kind", "module"], [tuple(one.values()) for one in listed])


def _describe(name: str, found: list[dict[str, str]], options: Options) -> None:
    if not found:
        raise ConfigError(
            f"expected the name of a plug-in, got {name!r}; `melt-stream collectors` lists them"
        )
    plug_in = plugins.load(f"melt_stream.{found[0]['kind']}s", name)
    settings = [_setting(field) for field in dataclasses.fields(plug_in) if field.init]
    about = inspect.getdoc(plug_in) or ""
    if options.json:
        print_json({**found[0], "about": about, "settings": settings})
        return
    print(about)
    print_table("", ["setting", "type", "default"], [tuple(one.values()) for one in settings])


def _setting(field: dataclasses.Field[Any]) -> dict[str, Any]:
    default: Any = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    needed = default is dataclasses.MISSING
    return {
        "setting": field.name,
        "type": str(field.type),
        "default": "(needed)" if needed else repr(default),
    }

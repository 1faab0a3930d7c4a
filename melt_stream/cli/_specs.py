"""``NAME[:key=value,...]``, as ``melt-stream record -c`` takes a collector."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

from melt_stream.errors import ConfigError

_NEXT_KEY = re.compile(r",(?=[A-Za-z_][A-Za-z0-9_]*=)")


def entries(specs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return recipe entries by instance name; a second one of a kind is called ``<kind>_2``, ``module.Class`` is called ``class``.

    A spec is split at its first ``:``, then at commas that ``key=`` follows, so that ports and paths need no quoting.
    """
    made: dict[str, dict[str, Any]] = {}
    for spec in specs:
        kind, entry = parse(spec)
        made[_instance(kind.rpartition(".")[2].lower(), made)] = {"kind": kind, **entry}
    return made


def parse(spec: str) -> tuple[str, dict[str, Any]]:
    """``"battery:hz=5"`` -> ``("battery", {"hz": 5})``; a value that is not TOML is taken as text."""
    kind, _, rest = spec.partition(":")
    pairs = [pair.partition("=") for pair in _NEXT_KEY.split(rest)] if rest else []
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise ConfigError(f"-c {spec}: expected NAME[:key=value,...], got {wrong[0]!r} without a value")
    return kind, {key: _value(text) for key, _, text in pairs}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _instance(kind: str, taken: dict[str, Any]) -> str:
    if kind not in taken:
        return kind
    return next(name for n in range(2, len(taken) + 3) if (name := f"{kind}_{n}") not in taken)

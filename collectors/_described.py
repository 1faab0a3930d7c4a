"""Columns and rails described in a recipe: from named values of any instrument to rows of streams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from pydantic import ConfigDict

from melt_stream.clock import HOST, Clock
from melt_stream.errors import ConfigError
from melt_stream.outlet import Row
from melt_stream.rail import Anchor, Boundary, Kind, Rail
from melt_stream.stream import NAME, RESERVED, ColumnType, Stream
from melt_stream.units import BYTE, CELSIUS, HZ, ONE, PERCENT, A, C, J, S, Unit, V, W

Value = float | str | None
"""What a column holds; None where the instrument gave no value: that is never zero."""
VALUES = "values"
"""Name of the stream of all columns that are no rail's."""
TEXT, SKIPPED = "text", "-"
ROLES = {"watts": W, "volts": V, "amps": A, "energy": J, "charge": C}
_BASES = (W, V, A, J, C, S, HZ, CELSIUS, BYTE, PERCENT, ONE, Unit("Ohm"))
_SPELLINGS = {
    "mAh": "mA.h", "Wh": "W.h", "mWh": "mW.h", "kWh": "kW.h", "%": "%", "": "1", "ohm": "Ohm", "\u03a9": "Ohm", "B": "By",
    "\u00b0C": "Cel", "degC": "Cel",
}  # fmt: skip
_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ColumnSpec:
    """One column of what an instrument tells."""

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID
    unit: str = ""
    """As in the text: ``mV``, ``uA``, ``mAh``; ``text`` for words, ``-`` for what is not kept."""
    key: str = ""
    """What it is called in the text, where that is not the column's name."""
    scale: float = 1.0
    """Each value is multiplied by it (a shunt that was exchanged, a sign)."""
    least: float | None = None
    """What lies below it, in ``unit`` and after ``scale``, is junk: a garbled number."""
    most: float | None = None
    optional: bool = False
    """Null where the text does not have it; otherwise such a text is junk."""


@dataclass(frozen=True)
class RailSpec:
    """Which columns make a rail, and how good they are; the fields are those of ``Rail``."""

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID
    boundary: Boundary
    kind: Kind = "gauge"
    watts: str = ""
    """The column that holds the power; by default the one of this name, if there is one. So are those below."""
    volts: str | float = ""
    """A number stands for a supply that is known and not measured."""
    amps: str = ""
    energy: str = ""
    charge: str = ""
    parent: str | None = None
    window_ns: float | None = None
    anchor: Anchor = "end"
    gain: float | None = None
    offset: float | None = None
    resolution: float | None = None
    noise: float | None = None
    modulus: float | None = None
    nominal_volts: float | None = None
    full_scale: float | None = None
    source: str = ""


Columns = dict[str, str | ColumnSpec]
"""By name: a unit, or more."""
Rails = dict[str, RailSpec]


class Measure(NamedTuple):
    """How a column's numbers become what is stored."""

    factor: float
    base: Unit
    scale: float
    least: float
    most: float
    """The last two in the base unit."""

    def stored(self, number: float) -> float:
        """Return the value in the base unit; ``ValueError`` where it is out of the column's range."""
        value = number * self.scale * self.factor
        if not self.least <= value <= self.most:
            raise ValueError(f"{value:g} {self.base.code} is out of the range stated")
        return value


def unit_of(text: str) -> tuple[Unit, float]:
    """Return the base unit in which a unit's values are stored, and the factor; ``ConfigError`` for an unknown one."""
    code = text.replace("\u00b5", "u").replace("\u03bc", "u")
    unit = Unit(_SPELLINGS.get(code, code))
    for base in _BASES:
        try:
            return base, unit.to(base)
        except ValueError:
            continue
    known = ", ".join(base.code for base in _BASES)
    raise ConfigError(f"expected a unit made of {known} with or without a prefix, or Ah, Wh, got {text!r}")


def specs(columns: Columns) -> dict[str, ColumnSpec]:
    """Return every column's description, its ``key`` filled in."""
    full = {name: ColumnSpec(one) if isinstance(one, str) else one for name, one in columns.items()}
    return {
        name: ColumnSpec(one.unit, one.key or name, one.scale, one.least, one.most, one.optional)
        for name, one in full.items()
    }


def measure(spec: ColumnSpec) -> Measure:
    """Return how a numeric column is converted; ``ConfigError`` for an unknown unit."""
    base, factor = unit_of(spec.unit)
    low, high = (
        none if bound is None else bound * factor
        for bound, none in ((spec.least, -math.inf), (spec.most, math.inf))
    )
    return Measure(factor, base, spec.scale, low, high)


@dataclass
class Described:
    """The streams of a description: one a rail, and ``values`` for the rest."""

    columns: Mapping[str, ColumnSpec]
    rails: Rails
    clock: Clock = HOST
    period_ns: float | None = None
    streams: dict[str, Stream] = field(default_factory=dict, init=False)
    _fill: dict[str, list[tuple[str, str | float]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        kept = {name: spec for name, spec in self.columns.items() if spec.unit != SKIPPED}
        if wrong := [name for name in kept if not NAME.fullmatch(name) or name in RESERVED]:
            raise ConfigError(
                f"columns: expected names [a-z][a-z0-9_]* that are not reserved, got {wrong[0]!r}; "
                f"write {{ key = {wrong[0]!r}, unit = ... }} under another name"
            )
        types: dict[str, ColumnType] = {
            name: str if spec.unit == TEXT else measure(spec).base for name, spec in kept.items()
        }
        used: set[str] = set()
        for name, rail in self.rails.items():
            used |= self._add_rail(name, rail, types)
        if rest := {name: kind for name, kind in types.items() if name not in used}:
            self.streams[VALUES] = self._stream(VALUES, rest)
            self._fill[VALUES] = [(name, name) for name in rest]

    def rows(self, values: Mapping[str, Value]) -> Iterator[tuple[Stream, Row]]:
        """Spread one record's values over the streams."""
        for name, stream in self.streams.items():
            row: Row = {
                column: values.get(source) if isinstance(source, str) else source
                for column, source in self._fill[name]
            }
            yield stream, row

    def declared(self) -> list[tuple[Stream, Rail]]:
        """Return the rails and their streams."""
        return [(self.streams[name], _rail(name, spec)) for name, spec in self.rails.items()]

    def _add_rail(self, name: str, rail: RailSpec, types: Mapping[str, ColumnType]) -> set[str]:
        """Make the rail's stream; return the columns that it uses."""
        if not NAME.fullmatch(name) or name == VALUES:
            raise ConfigError(f"rails: expected a name [a-z][a-z0-9_]* other than {VALUES!r}, got {name!r}")
        alone = len(self.rails) == 1
        sources: dict[str, str | float] = {}
        for role, base in ROLES.items():
            source = getattr(rail, role) or (role if alone and role in types else "")
            if source == "":
                continue
            if isinstance(source, str) and types.get(source) != base:
                there = f"one in {types[source]}" if source in types else "no such column"
                raise ConfigError(
                    f"rails.{name}.{role}: expected a column in {base.code}, got {source!r}, {there}"
                )
            sources[role] = source
        integrates = rail.kind in ("gauge", "mean")
        enough = ({"watts"}, {"volts", "amps"}) if integrates else ({"energy"}, {"charge"})
        if not any(roles <= sources.keys() for roles in enough):
            wanted = " or ".join(" and ".join(sorted(roles)) for roles in enough)
            raise ConfigError(
                f"rails.{name}: a rail of kind {rail.kind!r} needs {wanted}, got {sorted(sources)}"
            )
        left_out = {"energy", "charge"} if integrates else {"watts", "amps"}
        sources = {role: source for role, source in sources.items() if role not in left_out}
        self.streams[name] = self._stream(name, {role: ROLES[role] for role in sources})
        self._fill[name] = list(sources.items())
        return {source for source in sources.values() if isinstance(source, str)}

    def _stream(self, name: str, columns: Mapping[str, ColumnType]) -> Stream:
        return Stream(name, clock=self.clock, period_ns=self.period_ns, **dict[str, Any](columns))


def _rail(name: str, spec: RailSpec) -> Rail:
    facts: dict[str, Any] = {
        key: getattr(spec, key)
        for key in (
            "parent", "window_ns", "anchor", "gain", "offset", "resolution", "noise", "modulus", "nominal_volts",
            "full_scale", "source",
        )
    }  # fmt: skip
    return Rail(name, spec.boundary, spec.kind, instrument="meter", **facts)

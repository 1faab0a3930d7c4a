"""Text that sensors print, from bytes to records: pure functions of a description, apart from any transport."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from melt_stream.collectors._described import SKIPPED, TEXT, ColumnSpec, Measure, Value, measure, unit_of
from melt_stream.errors import ConfigError

Format = Literal["columns", "pairs", "json"]
Values = dict[str, Value]
NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*([^\d\s.+-][^\s\d]*)?\s*")
ABSENT = frozenset({"", "-", "nan", "null", "none", "inf", "-inf", "ovf", "n/a"})
"""What sensors print where they have no value; in lower case."""
PAIR = re.compile(r"\s*[=:]\s*")
ENDS = re.compile(rb"[\r\n]+")


class Junk(NamedTuple):
    """A line, or an unfinished record, that is not what the description says."""

    reason: str


@dataclass
class Cutter:
    """Cuts bytes into lines that end in LF, CR or both; of a longer one than ``limit`` only that it was there is kept."""

    limit: int = 4096
    _rest: bytearray = field(default_factory=bytearray)
    _too_long: bool = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield the lines that are complete now, without their ends and without empty ones; None for one too long."""
        *lines, rest = ENDS.split(data)
        for line in lines:
            yield from self._end(line)
        self._add(rest)

    @property
    def unfinished(self) -> bool:
        """Whether bytes came after the last line's end."""
        return bool(self._rest) or self._too_long

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._rest) + len(part) > self.limit:
            self._too_long = True
            self._rest.clear()
        else:
            self._rest += part

    def _end(self, part: bytes) -> Iterator[bytes | None]:
        self._add(part)
        line, long = bytes(self._rest), self._too_long
        self._rest.clear()
        self._too_long = False
        if long:
            yield None
        elif line.strip():
            yield line


@dataclass(frozen=True)
class Layout:
    """How one record looks as text."""

    columns: Mapping[str, ColumnSpec]
    """In the order of the text, where neither a header nor keys tell which is which."""
    format: Format = "columns"
    delimiter: str = ","
    """Between columns or pairs; a blank stands for any number of blanks and tabs."""
    header: bool = False
    """A line names the columns; records before it are not understood."""
    comment: str = ""
    """Lines that begin with it are left out."""
    start: str = ""
    """Key of the pair that begins a record of several lines."""
    checksum: Literal["none", "nmea"] = "none"
    """``nmea``: ``$text*XX``, where XX is the exclusive or of the text's bytes."""
    decimal: Literal[".", ","] = "."

    def __post_init__(self) -> None:
        if not self.columns:
            raise ConfigError("columns: expected at least one, got none")
        if not self.delimiter or self.delimiter == self.decimal == ",":
            raise ConfigError(
                f"delimiter: expected another character than the decimal one, got {self.delimiter!r}"
            )
        if self.start and (self.format != "pairs" or self.start not in self.keys):
            raise ConfigError(
                f"start: expected the key of a column, and format = 'pairs', got {self.start!r}, {self.format!r}"
            )
        if self.header and self.format != "columns":
            raise ConfigError(f"header: expected format = 'columns', got {self.format!r}")

    @property
    def keys(self) -> dict[str, str]:
        """Column name by what the text calls it."""
        return {spec.key or name: name for name, spec in self.columns.items()}


class Reader:
    """Makes records of lines, in the order they come."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.keys = layout.keys
        self.needed = {
            spec.key or name
            for name, spec in layout.columns.items()
            if spec.unit != SKIPPED and not spec.optional
        }
        self.converts = {
            name: measure(spec) if spec.unit != TEXT else None
            for name, spec in layout.columns.items()
            if spec.unit != SKIPPED
        }
        self.names: list[str] | None = None if layout.header else list(self.keys)
        self._open: dict[str, object] | None = None
        self._at = -1
        self._order = {key: place for place, key in enumerate(self.keys)}

    def take(self, line: bytes | None) -> Values | Junk | None:
        """Return the record that this line completes; None where it completes none and is not junk either."""
        try:
            text = self._text(line)
            if text is None:
                return None
            match self.layout.format:
                case "json":
                    return self._values(_json(text))
                case "pairs":
                    return self._pairs(text)
                case _:
                    return self._columns(text)
        except _JunkError as exc:
            return Junk(str(exc))

    def _text(self, line: bytes | None) -> str | None:
        if line is None:
            raise _JunkError("a line longer than max_line")
        try:
            text = line.decode("utf-8").strip().removeprefix("\ufeff")
        except UnicodeDecodeError as exc:
            raise _JunkError(f"expected text, got {line[:40]!r}") from exc
        if not text or (self.layout.comment and text.startswith(self.layout.comment)):
            return None
        return unwrapped(text) if self.layout.checksum == "nmea" else text

    def _columns(self, text: str) -> Values | None:
        cells = self._cells(text)
        if self.layout.header and self.needed <= set(cells):
            self.names = cells
            return None
        if self.names is None:
            return None
        if len(cells) != len(self.names):
            raise _JunkError(f"expected {len(self.names)} columns, got {len(cells)} in {text[:60]!r}")
        return self._values(dict(zip(self.names, cells, strict=True)))

    def _cells(self, text: str) -> list[str]:
        delimiter = self.layout.delimiter
        if delimiter.isspace() and delimiter != "\t":
            return text.split()
        if '"' in text and len(delimiter) == 1:
            try:
                return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter, strict=True))]
            except csv.Error as exc:
                raise _JunkError(f"{exc} in {text[:60]!r}") from exc
        return [cell.strip() for cell in text.split(delimiter)]

    def _pairs(self, text: str) -> Values | None:
        found: dict[str, object] = {}
        for piece in self._cells(text):
            key, *value = PAIR.split(piece, maxsplit=1)
            if value and key in found:
                raise _JunkError(f"{key!r} twice in {text[:60]!r}")
            if value:
                found[key] = value[0]
        return self._in_record(found) if self.layout.start else self._values(found)

    def _in_record(self, found: Mapping[str, object]) -> Values | None:
        """Collect a record's lines; they come in the order of the columns, so that no two records mix unseen."""
        known = [key for key in found if key in self._order]
        begins = self.layout.start in found
        cut, opened = begins and self._open is not None, self._open
        if begins:
            self._open, self._at = {}, -1
        for key in known:
            if self._open is None or self._order[key] <= self._at:
                self._open = None
                raise _JunkError(f"{key!r} out of its order: a line is missing before it")
            self._open[key], self._at = found[key], self._order[key]
        if self._open is not None and self.needed <= self._open.keys():
            record, self._open = self._open, None
            values = self._values(record)
            if not cut:
                return values
        if cut:
            assert opened is not None
            raise _JunkError(f"a record without {', '.join(sorted(self.needed - opened.keys()))}")
        return None

    def _values(self, found: Mapping[str, object]) -> Values:
        if missing := self.needed - found.keys():
            raise _JunkError(
                f"expected {', '.join(sorted(missing))}, got {', '.join(map(str, found))[:80] or 'none'}"
            )
        values: Values = {}
        for key, name in self.keys.items():
            if name in self.converts:
                values[name] = self._value(name, found.get(key))
        return values

    def _value(self, name: str, value: object) -> Value:
        convert = self.converts[name]
        if value is None:
            return None
        if convert is None:
            return str(value)[:256]
        return number(value, convert, self.layout.decimal)


def number(value: object, convert: Measure, decimal: str = ".") -> float | None:
    """Return a number, or text of one with or without its unit, as it is stored; None where the sensor has none."""
    if isinstance(value, str):
        text = value.replace(",", ".") if decimal == "," else value
        if text.strip().lower() in ABSENT:
            return None
        match = NUMBER.fullmatch(text)
        if match is None:
            raise _JunkError(f"expected a number, got {value[:40]!r}")
        if match[2]:
            convert = _other_unit(convert, match[2])
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _JunkError(f"expected a number, got {str(value)[:40]!r}")
    try:
        stored = convert.stored(float(value))
    except (ValueError, OverflowError) as exc:
        raise _JunkError(str(exc)) from exc
    if not math.isfinite(stored):
        raise _JunkError("expected a finite number")
    return stored


def unwrapped(text: str) -> str:
    """Return what ``$text*XX`` holds, where the checksum is right."""
    body, star, given = text.removeprefix("$").rpartition("*")
    check = 0
    for byte in body.encode():
        check ^= byte
    if not star or not re.fullmatch("[0-9A-Fa-f]{2}", given) or int(given, 16) != check:
        raise _JunkError(f"expected ...*{check:02X}, got {text[-60:]!r}")
    return body


class _JunkError(Exception):
    """Why a line is junk; never leaves this module."""


def _other_unit(convert: Measure, text: str) -> Measure:
    """The text's own unit wins over the description's, where it measures the same."""
    try:
        base, factor = unit_of(text)
    except ConfigError as exc:
        raise _JunkError(str(exc)) from exc
    if base != convert.base:
        raise _JunkError(f"expected a unit that makes {convert.base.code}, got {text!r}")
    return convert._replace(factor=factor)


def _json(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as exc:
        raise _JunkError(f"expected JSON, got {text[:60]!r}: {exc}") from exc
    if not isinstance(found, dict):
        raise _JunkError(f"expected a JSON object, got {text[:60]!r}")
    return dict(_flat(found, "", 0))


def _flat(found: Mapping[str, object], before: str, depth: int) -> Iterator[tuple[str, object]]:
    for key, value in found.items():
        if isinstance(value, dict) and depth < 8:
            yield from _flat(value, f"{before}{key}.", depth + 1)
        else:
            yield before + key, value

"""Rows of one source on their way to a batch, checked when they come, not when they are shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.clock import HOST
from melt_stream.sink import Batch, Source
from melt_stream.stream import Column, ColumnType
from melt_stream.units import Unit

Row = dict[str, Any]
Convert = Callable[[Any], Any]
"""Returns what is stored for a value; raises ``TypeError``, ``ValueError`` or ``OverflowError`` where it does not fit."""


class Table:
    """The rows of one source that wait to be cut into a batch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        stream = source.stream
        self.on_host = stream.clock == HOST
        self._stamps = ("tick", *(() if self.on_host else ("epoch",)), *(("t_u",) if stream.polled else ()))
        types = {field.name: field.type for field in source.schema}
        self._stamped = [(name, _integer(types[name].bit_width)) for name in self._stamps]
        self._converts = [(name, converter(column)) for name, column in stream.columns]
        self._convert_of = dict([*self._stamped, *self._converts])
        self._names = frozenset(name for name, _ in stream.columns)
        self._rows: list[list[Any]] = []
        self.last: tuple[int, int] | None = None
        """Tick and epoch of the last row."""

    def check(self, stamps: Row, values: Row) -> list[Any]:
        """Return a row as it is stored; raise ``TypeError`` for a wrong name or value."""
        if not self._names.issuperset(values):
            raise self._unknown(values)
        row: list[Any] = []
        self._convert(row, self._stamped, stamps)
        self._convert(row, self._converts, values)
        return row

    def add(self, row: list[Any]) -> None:
        """Keep a row that was checked."""
        self._rows.append(row)

    def cut(self) -> Iterator[Batch]:
        """Give the rows so far as a batch, if there are any."""
        if self._rows:
            rows, self._rows = self._rows, []
            schema = self.source.schema
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            yield Batch(self.source, pa.RecordBatch.from_arrays(arrays, schema=schema))

    def block(self, stamps: Row, columns: Row, length: int) -> pa.RecordBatch:
        """Return many rows at once, from an array a column; those left out are null."""
        if not self._names.issuperset(columns):
            raise self._unknown(columns)
        given = {name: stamps[name] for name in self._stamps} | columns
        arrays = [self._array(field, given.get(field.name), length) for field in self.source.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.source.schema)

    def _convert(self, row: list[Any], converts: list[tuple[str, Convert]], values: Row) -> None:
        # One try around the loop, and a list that grows: 0.6 us a row of two values, where a generator took 0.8.
        name, value = "", None
        try:
            for name, convert in converts:
                value = values.get(name)
                row.append(None if value is None else convert(value))
        except (TypeError, ValueError, OverflowError) as exc:
            raise TypeError(
                f"{self._where(name)}: expected {self._wanted(name)}, got {value!r} ({exc})"
            ) from exc

    def _array(self, field: pa.Field, values: Any, length: int) -> pa.Array:
        if values is None:
            return pa.nulls(length, field.type)
        try:
            array = self._stored(field, values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            raise TypeError(f"{self._where(field.name)}: expected {field.type}, got {exc}") from exc
        if len(array) != length:
            raise ValueError(
                f"{self._where(field.name)}: expected {length} rows, one a tick, got {len(array)}"
            )
        if array.null_count and not field.nullable:
            raise TypeError(
                f"{self._where(field.name)}: expected a number in every row, got {array.null_count} nulls"
            )
        return array

    def _stored(self, field: pa.Field, values: Any) -> pa.Array:
        if isinstance(values, pa.Array):
            if values.type != field.type:
                raise TypeError(f"{values.type}; cast it")
            return values
        if isinstance(values, np.ndarray) and values.dtype.kind in _kinds(field.type):
            # Copied, since Arrow would share the memory with whoever fills it again.
            return pa.array(values.copy(), field.type)
        # Arrow would cut 1.5 to 1 in a list for int64, without a word.
        convert = self._convert_of[field.name]
        return pa.array([None if value is None else convert(value) for value in values], field.type)

    def _unknown(self, values: Mapping[str, Any]) -> TypeError:
        known = [name for name, _ in self.source.stream.columns]
        return TypeError(
            f"{self.source.key}: expected columns {known}, got {sorted(set(values) - self._names)}"
        )

    def _where(self, name: str) -> str:
        return f"{self.source.key}, column {name!r}"

    def _wanted(self, name: str) -> str:
        column = dict(self.source.stream.columns).get(name, int)
        if isinstance(column, Column):
            return f"{column.type} in {column.unit.code}"
        return f"a number in {column.code}" if isinstance(column, Unit) else column.__name__


def _kinds(kind: pa.DataType) -> str:
    """The kinds of numpy's types that Arrow takes for this one without losing anything unsaid."""
    if pa.types.is_boolean(kind):
        return "b"
    return "iu" if pa.types.is_integer(kind) else "iuf" if pa.types.is_floating(kind) else ""


def converter(column: ColumnType) -> Convert:
    """Return what checks and converts a column's values."""
    if isinstance(column, Column):
        if pa.types.is_integer(column.type):
            return _integer(column.type.bit_width, signed=pa.types.is_signed_integer(column.type))
        return _real if pa.types.is_floating(column.type) else _arrow(column.type)
    plain: dict[object, Convert] = {str: _text, int: _integer(64), bool: _truth}
    return plain.get(column, _real)


def _real(value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(type(value).__name__)
    return float(value)


def _integer(bits: int, *, signed: bool = True) -> Convert:
    low = -(1 << (bits - 1)) if signed else 0
    high = low + (1 << bits)

    def convert(value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(type(value).__name__)
            value = int(value)
        if not low <= value < high:
            raise OverflowError(f"does not fit in {bits} bits")
        return int(value)

    return convert


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    if not value.isascii():
        value.encode()  # lone surrogates have no UTF-8
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(type(value).__name__)
    return bool(value)


def _arrow(kind: pa.DataType) -> Convert:
    def convert(value: Any) -> Any:
        try:
            pa.scalar(value, kind)
        except pa.ArrowException as exc:
            raise TypeError(str(exc)) from exc
        return value

    return convert

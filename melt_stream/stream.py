"""Streams: named, typed tables that grow while a run lasts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa

from melt_stream.clock import HOST, Clock
from melt_stream.units import NS, Unit

NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = frozenset(
    {
        "tick",
        "epoch",
        "t",
        "t_u",
        "t_ns",
        "joules",
        "covered_ns",
        "run",
        "instance",
        "device",
        "sensor",
    }
)
"""Column names that melt_stream adds itself."""


class Column(NamedTuple):
    """A column with a unit that is not stored as float64: ``Column(Unit("uJ"), pa.int64())``."""

    unit: Unit
    type: pa.DataType


ColumnType = Unit | Column | type[str] | type[int] | type[float] | type[bool]
_ARROW: dict[object, pa.DataType] = {
    str: pa.utf8(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


@dataclass(frozen=True, init=False)
class Stream:
    """The name and columns of one kind of measurement.

    A column is declared by its unit (float64), by a :class:`Column`, or by ``str``, ``int``, ``float`` or ``bool``::

        RAILS = Stream("rails", rail=str, watts=W)

    Every stream also has ``tick``: int64, counted by ``clock`` (by default nanoseconds of the host's monotonic
    clock); a stream of another clock has ``epoch`` beside it, which counts that clock's restarts. A ``polled``
    stream has ``t_u``, half of the time the read took, in ns. ``period_ns`` is set where rows come regularly.
    A changed unit or type is a new column name. Raises ``ValueError`` for a name that is not ``[a-z][a-z0-9_]*``
    or is reserved.
    """

    name: str
    columns: tuple[tuple[str, ColumnType], ...]
    clock: Clock
    period_ns: float | None
    role: str
    polled: bool

    def __init__(
        self,
        name: str,
        /,
        *,
        clock: Clock = HOST,
        period_ns: float | None = None,
        role: str = "",
        polled: bool = False,
        **columns: ColumnType,
    ) -> None:
        for word in (name, *columns):
            if not NAME.fullmatch(word) or (word in RESERVED and word != name):
                raise ValueError(
                    f"stream {name!r}: expected a name [a-z][a-z0-9_]* that is not reserved, got {word!r}"
                )
        for field, value in (
            ("name", name),
            ("columns", tuple(columns.items())),
            ("clock", clock),
            ("period_ns", period_ns),
            ("role", role),
            ("polled", polled),
        ):
            object.__setattr__(self, field, value)

    def as_polled(self, period_ns: float | None = None, clock: Clock | None = None) -> Stream:
        """The same stream with ``t_u`` beside ``tick``, this period where it has none of its own, and this clock."""
        return Stream(
            self.name,
            clock=clock or self.clock,
            period_ns=self.period_ns or period_ns,
            role=self.role,
            polled=True,
            **dict(self.columns),
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with each column's unit in its field's metadata."""
        fields = [pa.field("tick", pa.int64(), nullable=False)]
        if self.clock != HOST:
            fields.append(pa.field("epoch", pa.int32(), nullable=False))
        if self.polled:
            fields.append(pa.field("t_u", pa.int64(), metadata={"unit": NS.code}))
        return pa.schema([*fields, *(_field(name, column) for name, column in self.columns)])


def _field(name: str, column: ColumnType) -> pa.Field:
    if isinstance(column, Unit):
        return pa.field(name, pa.float64(), metadata={"unit": column.code})
    if isinstance(column, Column):
        return pa.field(name, column.type, metadata={"unit": column.unit.code})
    return pa.field(name, _ARROW[column])

"""What a recipe says about text: the keys that the collector and the importer ``lines`` share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import PositiveFloat, PositiveInt

from melt_stream.collectors._described import SKIPPED, TEXT, Columns, ColumnSpec, Rails, measure, specs
from melt_stream.collectors._lines import Format, Layout
from melt_stream.errors import ConfigError
from melt_stream.units import S

WRAP = 1 << 32
TICK_NS = {"s": 1e3, "ms": 1e6, "us": 1e3, "ns": 1.0}
"""What a tick of the device's clock is, by the unit of its column; seconds come with decimals."""


@dataclass
class Description:
    """How records look, and what they mean."""

    columns: Columns
    """By name: the unit, or a table with ``unit``, ``key``, ``scale``, ``least``, ``most``, ``optional``."""
    _: KW_ONLY
    rails: Rails = field(default_factory=dict)
    """By name: ``boundary``, ``kind``, which columns, and how good they are."""
    format: Format = "columns"
    """``columns``, ``pairs`` (``key=value``, ``key: value``) or ``json`` (an object a line; ``a.b`` is nested)."""
    delimiter: str = ","
    """Between columns or pairs; one blank stands for any number of them."""
    header: bool = False
    """A line names the columns."""
    comment: str = ""
    """What begins lines that are left out."""
    start: str = ""
    """Key of the pair that begins a record of several lines, whose pairs come in the order of ``columns``."""
    checksum: Literal["none", "nmea"] = "none"
    """``nmea``: ``$text*XX``."""
    decimal: Literal[".", ","] = "."
    max_line: Annotated[int, Gt(1), Le(1 << 20)] = 4096
    """Bytes of a line, at most."""
    time: str = ""
    """The column, in ms, us, s or ns, that has the device's own time."""
    time_wrap: PositiveInt | None = None
    """The count at which that time starts again from 0; by default 2^32 in ms and us, and never in s and ns."""
    hz: PositiveFloat | None = None
    """Records a second, where they come regularly: then a missing one is seen."""

    @property
    def period_ns(self) -> float | None:
        """Time between records, where that is known."""
        return 1e9 / self.hz if self.hz else None

    def layout(self) -> Layout:
        """Return what the reader of records needs. Raises ``ConfigError``."""
        return Layout(
            specs(self.columns), self.format, self.delimiter, self.header, self.comment, self.start, self.checksum,
            self.decimal,
        )  # fmt: skip

    def kept(self) -> dict[str, ColumnSpec]:
        """Return the columns to store."""
        return {
            name: spec
            for name, spec in specs(self.columns).items()
            if name != self.time and spec.unit != SKIPPED
        }

    def tick_ns(self) -> float:
        """Return the length of a tick of the time column's clock. Raises ``ConfigError`` where there is none."""
        spec = specs(self.columns).get(self.time)
        if spec is None or spec.unit == TEXT or measure(spec).base != S or spec.unit not in TICK_NS:
            got = f"{self.time!r}, {'no column' if spec is None else f'in {spec.unit!r}'}"
            raise ConfigError(f"time: expected a column in {', '.join(TICK_NS)}, got {got}")
        return TICK_NS[spec.unit]

    def wrap(self) -> int | None:
        """Return the count at which the device's time starts again."""
        unit = specs(self.columns)[self.time].unit
        return self.time_wrap or (WRAP if unit in ("ms", "us") else None)

    def resolution(self) -> int:
        """Return how many ticks a printed time is good for; 0 where only the data tell (decimals of seconds)."""
        return 0 if specs(self.columns)[self.time].unit == "s" else 1

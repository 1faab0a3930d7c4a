"""A measured number, and what it should reach."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """What a figure's median should reach."""

    sign: Literal[">=", "<="]
    value: float

    def met_by(self, value: float) -> bool:
        """Whether ``value`` is good enough."""
        return value >= self.value if self.sign == ">=" else value <= self.value


@dataclass(frozen=True)
class Figure:
    """One line of a bench's table: the values of all rounds, in one unit."""

    what: str
    values: Sequence[float]
    unit: str
    """``x`` for a ratio; ``s`` and ``B`` are shown with a prefix."""
    target: Target | None = None

    @property
    def median(self) -> float:
        """What is quoted."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else self.target.met_by(self.median)

    def show(self, value: float) -> str:
        """A value with its unit, short enough for a table."""
        match self.unit:
            case "s":
                return _scaled(value, (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)))
            case "B":
                return _scaled(value, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)))
            case "rows/s":
                return _scaled(value, (("M rows/s", 1e6), ("k rows/s", 1e3)))
            case "x":
                return f"{_digits(value)} x"
            case "%":
                return f"{_digits(value)} %"
            case unit:
                return f"{_digits(value)} {unit}".rstrip()


def at_least(value: float) -> Target:
    """A target from below."""
    return Target(">=", value)


def at_most(value: float) -> Target:
    """A target from above."""
    return Target("<=", value)


def _scaled(value: float, units: Sequence[tuple[str, float]]) -> str:
    name, factor = next(((n, f) for n, f in units if abs(value) >= f), units[-1])
    return f"{_digits(value / factor)} {name}"


def _digits(value: float) -> str:
    """Three figures, and never an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"

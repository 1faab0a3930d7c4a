"""
Limits that a comparison, or a single side, must keep::

    decode.j_per_token <= 0.9        a value, in the metric's unit
    decode.tokens_per_s >= 20
    decode.j_per_token <= 1.05x      the ratio to the first side
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from melt_stream.analysis.compare.observed import COLUMNS
from melt_stream.errors import ConfigError

Word = Literal["kept", "broken", "undecidable"]
_TEXT = re.compile(r"\s*([\w:./-]+)\.(\w+)\s*(<=|>=|<|>)\s*([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(x?)\s*")
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """One limit."""

    text: str
    metric: str
    sign: str
    limit: float
    ratio: bool
    """Of the first side's value, not a value by itself."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a limit. Raises ``ConfigError``."""
        found = _TEXT.fullmatch(text)
        if found is None or found[2] not in COLUMNS:
            raise ConfigError(
                f"--budget: expected PHASE.METRIC <= NUMBER (or >=, <, >; NUMBERx is a ratio to the first side), METRIC one of "
                f"{', '.join(COLUMNS)}, got {text!r}"
            )
        return cls(text.strip(), f"{found[1]}.{found[2]}", found[3], float(found[4]), found[5] == "x")

    def judge(self, value: float | None, low: float | None, high: float | None) -> Word:
        """Say whether the limit is kept, by all of the interval; undecidable where it holds the limit or is not known."""
        if value is None or low is None or high is None:
            return "undecidable"
        holds = {_HOLDS[self.sign](bound, self.limit) for bound in (low, high)}
        if len(holds) > 1:
            return "undecidable"
        return "kept" if holds.pop() else "broken"


@dataclass(frozen=True)
class Verdict:
    """What became of a limit on one side."""

    budget: Budget
    side: str
    value: float | None
    low: float | None
    high: float | None
    word: Word

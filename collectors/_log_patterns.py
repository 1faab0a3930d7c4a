"""A log of the user's own: lines are told by regular expressions, whose named groups are an event's columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from melt_stream.collectors._log_said import NOW, At, Base, Said, Unreadable
from melt_stream.errors import ConfigError
from melt_stream.events import Kind

UNITS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
NUMBERS = ("index", "count", "prompt_total", "prompt_cached", "prompt_processed", "drafted", "accepted")
TEXTS = ("name", "text")
_BEGINS = ("request_sent", "window_start")
_TIME = re.compile(r"(\d{1,19})(?:[.,](\d{1,12}))?")
LONGEST = 1 << 14
"""Characters of a line that are looked at: a pattern may take long for more."""


@dataclass(frozen=True)
class Pattern:
    """What a line looks like, and what it means."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    event: Kind
    pattern: str
    """Searched in each line. Groups: ``time``, ``request``, and the columns ``index``, ``count``, ``name``, ``text``, ``prompt_total``, ..."""
    clock: Literal["realtime", "boottime", "relative", "none"] = "none"
    """What ``time`` is counted by; ``relative``: since the program began; ``none``: the line's own stamp counts."""
    unit: Literal["s", "ms", "us", "ns"] = "ns"
    """Of ``time``, which may have decimals."""

    def compiled(self) -> re.Pattern[str]:
        """Return it. Raises ``ConfigError``."""
        try:
            found = re.compile(self.pattern)
        except re.error as exc:
            raise ConfigError(f"pattern: expected a regular expression, got {self.pattern!r}: {exc}") from exc
        known = {"time", "request", *NUMBERS, *TEXTS}
        if unknown := sorted(found.groupindex.keys() - known):
            raise ConfigError(
                f"pattern: expected groups out of {', '.join(sorted(known))}, got {unknown[0]!r}"
            )
        if ("time" in found.groupindex) != (self.clock != "none"):
            raise ConfigError(
                f"pattern: expected a group (?P<time>...) with a clock, and none without, got {self.pattern!r} with clock = {self.clock!r}"
            )
        return found


@dataclass
class Patterns:
    """Reads each line by the first pattern that fits. Without a group ``request``, an event belongs to the request that began last."""

    patterns: Sequence[Pattern]
    _number: int = 0
    _begun: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ConfigError("patterns: expected at least one, got none")
        self._compiled = [(pattern, pattern.compiled()) for pattern in self.patterns]

    def take(self, text: str) -> Sequence[Said]:
        for pattern, compiled in self._compiled:
            if (found := compiled.search(text[:LONGEST])) is not None:
                return [self._said(pattern, found.groupdict())]
        return []

    def _said(self, pattern: Pattern, groups: dict[str, str | None]) -> Said:
        values: dict[str, Any] = {name: groups[name] for name in TEXTS if groups.get(name) is not None}
        for name in NUMBERS:
            if (word := groups.get(name)) is not None:
                if not re.fullmatch(r"\d{1,12}", word):
                    raise Unreadable(f"expected a number as {name}, got {word[:40]!r}")
                values[name] = int(word)
        return Said(
            pattern.event, self._at(pattern, groups.get("time")), self._request(pattern.event, groups), values
        )

    def _at(self, pattern: Pattern, time: str | None) -> At:
        if pattern.clock == "none" or time is None:
            return NOW
        if (found := _TIME.fullmatch(time)) is None:
            raise Unreadable(f"expected a time in {pattern.unit}, got {time[:40]!r}")
        unit, decimals = UNITS[pattern.unit], found[2] or ""
        ns = int(found[1]) * unit + int(decimals or 0) * unit // 10 ** len(decimals)
        if ns >= 1 << 62:
            raise Unreadable(f"expected a time in {pattern.unit}, got {time[:40]!r}")
        base: Base = pattern.clock
        return At(base, ns, max(1, unit // 10 ** len(decimals)))

    def _request(self, event: Kind, groups: dict[str, str | None]) -> str | None:
        if event.startswith(("phase", "load")) or event == "mark":
            return None
        if (told := groups.get("request")) is not None:
            return told
        ended = str(self._number) not in self._begun
        if event in _BEGINS or (event == "prefill_start" and ended):
            self._number += 1
            self._begun.add(str(self._number))
        if event in ("request_end", "request_error", "window_end"):
            self._begun.discard(str(self._number))
        return str(self._number)

    def finish(self) -> Sequence[Said]:
        return []

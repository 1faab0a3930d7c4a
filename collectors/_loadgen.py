"""What MLPerf's loadgen writes: ``mlperf_log_detail.txt``, and the window in which power counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._ptdaemon import local_ns
from melt_stream.errors import DataError

MAX_ENTRIES = 200_000
_PREFIX = ":::MLLOG "
_POWER = re.compile(
    r"power_(begin|end)\b.*?(\d{1,4}-\d{1,2}-\d{1,4} \d{1,2}:\d{1,2}:\d{1,2}(?:\.\d{1,9})?)", re.IGNORECASE
)
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})Z")
_LONG = 400


class Entry(NamedTuple):
    """A line of the log; ``ns`` counts from loadgen's start."""

    ns: int
    key: str
    value: str


@dataclass
class Loadgen:
    """A run as its loadgen saw it; times are local ns."""

    begin: int | None = None
    end: int | None = None
    entries: list[Entry] = field(default_factory=list)

    def value(self, key: str) -> str | None:
        """Return the last value of a key."""
        return next((entry.value for entry in reversed(self.entries) if entry.key == key), None)

    def readings(self, clock: Clock, epoch: int, begin: int, end: int) -> Iterator[Reading]:
        """Yield what bounds loadgen's own axis; ``begin`` and ``end`` of the power window in host ns.

        It was opened in the second that ``test_datetime`` names and before the window began; its last line was
        written after the window ended.
        """
        opened = next((entry for entry in self.entries if entry.key == "test_datetime"), None)
        if opened is not None and self.begin is not None and (found := _ISO.match(opened.value)):
            second = local_ns(f"{found[1]} {found[2]}", "test_datetime") - self.begin + begin
            yield Reading(clock, opened.ns, 1, second, min(second + 1_000_000_000, begin), epoch)
        yield Reading(clock, max(entry.ns for entry in self.entries), 1, end, None, epoch, "cause")


def read_loadgen(lines: Iterable[tuple[int, str]], path: Path) -> Loadgen:
    """Return what a detail log says: the JSON lines of loadgen 0.7 and later, or ``POWER_BEGIN`` of older ones."""
    run = Loadgen()
    for number, line in lines:
        where = f"{path}, line {number}"
        if found := _POWER.search(line, 0, 4000):
            when = local_ns(found[2], where)
            if found[1].lower() == "begin":
                run.begin = when
            else:
                run.end = when
        if line.startswith(_PREFIX):
            run.entries.append(_entry(line, where))
        if len(run.entries) > MAX_ENTRIES:
            raise DataError(f"{where}: expected at most {MAX_ENTRIES} lines, got more")
    if run.begin is not None and run.end is not None and run.end < run.begin:
        raise DataError(
            f"{path}: expected power_end after power_begin, got it {(run.begin - run.end) / 1e9} s before"
        )
    return run


def _entry(line: str, where: str) -> Entry:
    try:
        data: Any = json.loads(line[len(_PREFIX) :], parse_float=Decimal)
        key, value, ms = str(data["key"]), data["value"], data["time_ms"]
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        ns = int((Decimal(ms) * 1_000_000).to_integral_value()) if abs(Decimal(ms)) < 10**15 else -1
    except (ValueError, KeyError, TypeError, RecursionError, InvalidOperation) as exc:
        raise DataError(
            f"{where}: expected {_PREFIX}{{'key', 'value', 'time_ms'}}, got {exc!r:.100}"
        ) from exc
    shown = text if len(text) <= _LONG else text[:_LONG] + "..."
    if not 0 <= ns < 2**64:
        raise DataError(f"{where}, time_ms: expected a number of milliseconds, got {str(ms)[:40]}")
    return Entry(
        ns - 2**64 if ns >= 2**63 else ns, key, shown
    )  # unsigned, so that a little before 0 reads as 584 years

"""What SPEC PTDaemon writes: ``spl.txt``, a line a second, and the averages in ``ptd_logs.txt``.

    Time,03-17-2021 20:18:21.541,Watts,9.513000,Volts,120.380000,Amps,0.200120,PF,0.394900,Mark,NAME

Multi-channel meters and merged meters append ``,Ch1,Watts,...`` or ``,Analyzer1,Time,...``: the first figures are
the totals, and the only ones taken. Pure parsers; times are "local": ns since 1970 of what the wall clock showed.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from melt_stream.errors import DataError

MAX_SAMPLES = 2_000_000
"""Three weeks at 1 Hz."""
VALUES = ("watts", "volts", "amps", "pf")
_TIME = re.compile(
    r"\s*(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})[ T](\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?\s*"
)
_FIGURE = re.compile(
    r"\s*[+-]?(\d{1,30}(\.\d{0,30})?([eE][+-]?\d{1,2})?|nan|inf(inity)?|1\.#(qnan|ind|inf)\w*)\s*",
    re.IGNORECASE,
)
_FURTHER = re.compile(r"(ch|analyzer)\d*", re.IGNORECASE)
_GO = re.compile(r"Go with mark '([^']{0,200})'")
_AVERAGE = re.compile(r"Avg watts (\d{1,12}\.?\d{0,12}), .*valid (\d{1,9})")
_EPOCH = date(1970, 1, 1).toordinal()
Int64 = np.ndarray[Any, np.dtype[np.int64]]
Float64 = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Day:
    """A date as three numbers in the order in which they stand."""

    a: int
    b: int
    c: int

    def ns(self, order: str) -> int | None:
        """Return its midnight in ns since 1970, read as ``ymd``, ``mdy`` or ``dmy``; None where that is no date."""
        parts = dict(zip(order, (self.a, self.b, self.c), strict=True))
        try:
            day = date(parts["y"], parts["m"], parts["d"])
        except ValueError:
            return None
        return (day.toordinal() - _EPOCH) * 86_400_000_000_000 if 1970 <= day.year <= 2200 else None


def split_time(text: str, where: str) -> tuple[Day, int]:
    """Return the date, its order unknown, and the ns since midnight."""
    found = _TIME.fullmatch(text)
    if found is None or int(found[4]) > 23 or int(found[5]) > 59 or int(found[6]) > 60:
        raise DataError(f"{where}: expected a time like 03-17-2021 20:18:21.541, got {text[:40]!r}")
    seconds = (int(found[4]) * 60 + int(found[5])) * 60 + int(found[6])
    fraction = int((found[7] or "0").ljust(9, "0"))
    return Day(int(found[1]), int(found[2]), int(found[3])), seconds * 1_000_000_000 + fraction


def local_ns(text: str, where: str) -> int:
    """Return a time whose date stands month first, or year first, as local ns."""
    day, since = split_time(text, where)
    midnight = day.ns("ymd" if day.a > 31 else "mdy")
    if midnight is None:
        raise DataError(f"{where}: expected a date, month first, got {text[:40]!r}")
    return midnight + since


@dataclass
class Samples:
    """The samples of a ``spl.txt``, in the file's order; invalid figures are NaN."""

    local: Int64
    values: dict[str, Float64]
    marks: list[str]


@dataclass
class _Table:
    days: dict[Day, int] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    day: array[int] = field(default_factory=lambda: array("q"))
    since: array[int] = field(default_factory=lambda: array("q"))
    mark: array[int] = field(default_factory=lambda: array("q"))
    values: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in VALUES})

    def add(self, fields: dict[str, str], where: str) -> None:
        day, since = split_time(fields["time"], where)
        self.day.append(self.days.setdefault(day, len(self.days)))
        self.since.append(since)
        mark = fields.get("mark", "").strip()
        self.mark.append(self.marks.setdefault(mark, len(self.marks)))
        for name in VALUES:
            self.values[name].append(_figure(fields.get(name), f"{where}, {name}"))


def read_samples(lines: Iterable[tuple[int, str]], path: Path, near: int | None = None) -> Samples:
    """Return a file's samples; lines that do not begin with ``Time`` are passed over.

    Dates stand month first, or day first with some versions: what gives a date on every line is taken; where both
    do, what lies nearer to ``near`` (local ns, such as the loadgen's ``power_begin``), else month first.
    """
    table = _Table()
    for number, line in lines:
        if not line.lstrip().lower().startswith("time,"):
            continue
        where = f"{path}, line {number}"
        fields = _fields(line)
        if missing := [name for name in ("time", "watts") if name not in fields]:
            raise DataError(f"{where}: expected Time,...,Watts,..., got no {missing[0]} in {line[:80]!r}")
        if len(table.day) >= MAX_SAMPLES:
            raise DataError(f"{where}: expected at most {MAX_SAMPLES} samples, got more")
        table.add(fields, where)
    midnights = _midnights(list(table.days), path, near)
    local = midnights[np.frombuffer(table.day, np.int64)] + np.frombuffer(table.since, np.int64)
    marks = list(table.marks)
    values = {name: np.frombuffer(column, np.float64) for name, column in table.values.items()}
    return Samples(local, values, [marks[k] for k in table.mark])


def averages(lines: Iterable[tuple[int, str]]) -> dict[str, tuple[float, int]]:
    """Return PTDaemon's own (mean watts, valid samples) of each measurement, by its mark, from ``ptd_logs.txt``."""
    found: dict[str, tuple[float, int]] = {}
    mark: str | None = None
    for _, line in lines:
        if go := _GO.search(line):
            mark = go[1]
        elif mark is not None and (average := _AVERAGE.search(line)):
            found[mark] = float(average[1]), int(average[2])
            mark = None
    return found


def _fields(line: str) -> dict[str, str]:
    words = line.split(",", 64)
    fields: dict[str, str] = {}
    for key, value in zip(words[0::2], words[1::2], strict=False):
        name = key.strip().lower()
        if _FURTHER.fullmatch(name):
            break
        fields.setdefault(name, value)
    return fields


def _figure(text: str | None, where: str) -> float:
    """A figure; NaN where it is absent, or says that it is invalid: ``-1``, ``nan``, infinite."""
    if text is None or not text.strip():
        return math.nan
    if not _FIGURE.fullmatch(text):
        raise DataError(f"{where}: expected a number, got {text[:40]!r}")
    value = math.nan if "#" in text else float(text)
    return value if math.isfinite(value) and value != -1.0 else math.nan


def _midnights(days: list[Day], path: Path, near: int | None) -> Int64:
    read = {}
    for order in ("ymd",) if days and days[0].a > 31 else ("mdy", "dmy"):
        midnights = [day.ns(order) for day in days]
        if None not in midnights:
            read[order] = np.array(midnights, np.int64)
    if not read:
        raise DataError(
            f"{path}: expected dates with the month first or the day first throughout, got {days[0]}"
        )
    if near is None or not days:
        return next(iter(read.values()))
    return min(read.values(), key=lambda midnights: abs(int(midnights[0]) - near))

"""What llm-profiler writes: measured phases of a phone (``merged.csv``), official means (``results.csv``), polls of an iPhone's gauge. Pure.

Speeds are tokens a second, capacities uAh a token, energies mJ a token, ``..._turn`` the same of all tokens of a phase, temperatures degC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from melt_stream.collectors._files import read_json
from melt_stream.collectors._named_columns import named_rows
from melt_stream.errors import DataError

PHASES = ("prefill", "decode")
POLLS_LIMIT = 1_000_000
MOST = 1e9
"""No column holds more."""
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,12})?")
POLL = ("UpdateTime", "Voltage", "AppleRawCurrentCapacity", "AppleRawMaxCapacity")


class Phase(NamedTuple):
    """One phase of one test."""

    name: str
    tokens: int
    tokens_per_s: float
    uah_per_token: float
    mj_per_token: float
    millijoules: float | None
    """Of the whole phase, as the file has it beside."""
    celsius: float | None
    """Mean."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.tokens / self.tokens_per_s


class Poll(NamedTuple):
    """What the gauge showed."""

    at_s: int
    """Since 1970: when it was refreshed, not when it was asked."""
    volts: float
    remaining_mah: float
    full_mah: float


def phases(path: Path) -> list[Phase]:
    """Return the phases of a ``merged.csv``, in its order. Raises ``DataError`` with line and column."""
    found: list[Phase] = []
    for line, row in islice(named_rows(path), 1, None):
        for name in PHASES:
            values = {
                key: _number(path, line, row, f"{name}_{key}")
                for key in ("len", "token_speed", "capacity", "energy")
            }
            if values["len"] < 1 or values["len"] % 1 or not values["token_speed"]:
                raise DataError(
                    f"{path}, line {line}: expected {name}_len tokens at a {name}_token_speed above 0, got {row}"[
                        :300
                    ]
                )
            turn, heat = (_optional(path, line, row, f"{name}_{key}") for key in ("energy_turn", "avg_temp"))
            found.append(
                Phase(
                    name,
                    int(values["len"]),
                    values["token_speed"],
                    values["capacity"],
                    values["energy"],
                    turn,
                    heat,
                )
            )
    if not found:
        raise DataError(f"{path}: expected rows below the header, got none")
    return found


def official(path: Path, test: str, device: str) -> dict[str, float]:
    """Return the columns of a ``results.csv`` for one test of one device; empty where it has none."""
    for line, row in islice(named_rows(path), 1, None):
        if (row.get("test"), row.get("device")) == (test, device):
            return {name: _number(path, line, row, name) for name in row if name not in ("test", "device")}
    return {}


def polls(path: Path) -> tuple[list[Poll], int]:
    """Return the refreshes that polls of an iPhone's gauge saw, and how many polls saw one again. Raises ``DataError`` with the element."""
    found: list[Poll] = []
    again = 0
    records = read_json(path)
    if not isinstance(records, list) or not 0 < len(records) <= POLLS_LIMIT:
        raise DataError(f"{path}: expected a list of 1 to {POLLS_LIMIT} polls, got {str(records)[:80]!r}")
    for place, record in enumerate(records):
        poll = _poll(record, f"{path}, element {place}")
        if found and poll.at_s < found[-1].at_s:
            raise DataError(
                f"{path}, element {place}: expected an UpdateTime that never decreases, got {poll.at_s} after {found[-1].at_s}"
            )
        if found and poll.at_s == found[-1].at_s:
            again += 1
        else:
            found.append(poll)
    return found, again


def _poll(record: object, where: str) -> Poll:
    values = [record.get(name) if isinstance(record, dict) else None for name in POLL]
    if any(isinstance(v, bool) or not isinstance(v, int | Decimal) or not 0 <= v <= 1e11 for v in values):
        raise DataError(f"{where}: expected numbers {', '.join(POLL)}, got {str(record)[:120]!r}")
    at, millivolts, remaining, full = (float(v) for v in values if v is not None)
    return Poll(int(at), millivolts * 1e-3, remaining, full)


def _optional(path: Path, line: int, row: Mapping[str, str], name: str) -> float | None:
    return None if row.get(name) in (None, "") else _number(path, line, row, name)


def _number(path: Path, line: int, row: Mapping[str, str], name: str) -> float:
    text = row.get(name, "")
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not value <= MOST:
        got = f"no such column among {', '.join(row)[:80]}" if name not in row else repr(text[:40])
        raise DataError(f"{path}, line {line}, column {name}: expected a number up to {MOST:g}, got {got}")
    return value

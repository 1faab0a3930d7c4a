"""What MELT's apps on phones write: conversations, question by question, and the phone's thermal states. Pure but for reading.

    measurements_iter{r}.json    [{modelName, modelLoadTime {start, duration}, questionRecords [{time {start, duration}, input, output,
                                 original_session_tokens, input_tokens, output_tokens, runtimeStats}]}]
    ..._thermals.json            [{timestamp, state}], state one of nominal, fair, serious, critical

Times are seconds since 1970 by the phone's wall clock; older iOS files have ISO-8601 texts in UTC. Source: LLMFarmEval, in
docs/importers.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from melt_stream.collectors._files import read_json, seconds_to_ns
from melt_stream.errors import DataError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

STATES = ("nominal", "fair", "serious", "critical")
THERMAL = Stream("app_thermal", state=str, level=int)
"""``level``: 0 (nominal) to 3 (critical); null for a state of another name."""
MOST = 100_000
"""Questions, or thermal states, of one file."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Span(NamedTuple):
    """From when to when, ns since 1970 by the phone."""

    start: int
    stop: int


@dataclass(frozen=True)
class Question:
    """One question and its answer."""

    span: Span
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """``input_tokens``, ``output_tokens``, ``original_session_tokens`` and ``runtime_stats``, as far as they are there."""
    output: str = ""


@dataclass(frozen=True)
class Conversation:
    """One load of a model, and what was asked."""

    model: str
    load: Span | None
    questions: list[Question] = field(default_factory=list)


class ThermalState(NamedTuple):
    """What the phone said of its temperature."""

    at: int
    """ns since 1970."""
    state: str


def conversations(path: Path) -> list[Conversation]:
    """Read one ``measurements_iter{r}.json``. Raises ``DataError`` with the place in it."""
    found = [
        _conversation(_table(one, f"{path}: [{n}]"), f"{path}: [{n}]")
        for n, one in enumerate(_items(read_json(path), str(path)))
    ]
    if sum(len(one.questions) for one in found) > MOST:
        raise DataError(f"{path}: expected at most {MOST} questions, got more")
    return found


def thermal_states(path: Path) -> list[ThermalState]:
    """Read one ``..._thermals.json``. Raises ``DataError`` with the place in it."""
    found = []
    for n, item in enumerate(_items(read_json(path), str(path))):
        where = f"{path}: [{n}]"
        one = _table(item, where)
        found.append(
            ThermalState(_moment(one.get("timestamp"), f"{where}.timestamp"), str(one.get("state"))[:80])
        )
    return found


def first_moment(talks: Iterable[Conversation], states: Iterable[ThermalState]) -> int | None:
    """Return the earliest time in them; None where there is none."""
    spans = [span for talk in talks for span in (talk.load, *(one.span for one in talk.questions)) if span]
    return min([*(span.start for span in spans), *(one.at for one in states)], default=None)


def emit(
    out: Outlet,
    talks: Mapping[str, Conversation],
    states: Iterable[ThermalState],
    begin: int,
    *,
    keep_text: bool = False,
) -> None:
    """Put them in the outlet: loads, a window for each question, thermal states; ticks count from ``begin``, ns since 1970.

    ``talks`` are by what their questions are called.
    """  # fmt: skip
    rows: list[tuple[int, dict[str, Any]]] = []
    for label, talk in talks.items():
        if talk.load is not None:
            rows += _pair(talk.load, ("load_start", "load_end"), {"name": talk.model})
        for number, one in enumerate(talk.questions):
            about = {"request": out.next_request(), "name": f"{label} question {number}"}
            detail = json.dumps({"model": talk.model, **one.numbers})
            start, stop = _pair(one.span, ("window_start", "window_end"), about)
            text = {"text": one.output} if keep_text else {}
            rows += [start, (stop[0], {**stop[1], "detail": detail, **text})]
    for tick, row in sorted(rows, key=lambda row: row[0]):
        out.row(EVENTS, tick=tick - begin, **row)
    for at, state in sorted(states):
        level = STATES.index(state.lower()) if state.lower() in STATES else None
        out.row(THERMAL, tick=at - begin, state=state, level=level)


def _pair(span: Span, kinds: tuple[str, str], about: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return [(at, {"kind": kind, **about}) for at, kind in zip(span, kinds, strict=True)]


def _conversation(one: Mapping[str, Any], where: str) -> Conversation:
    load = one.get("modelLoadTime")
    label = "questionRecords" if "questionRecords" in one else "chatRecords"  # as some versions have it
    asked = enumerate(_items(one.get(label), f"{where}.{label}"))
    return Conversation(
        str(one.get("modelName") or "")[:200],
        None if load is None else _span(load, f"{where}.modelLoadTime"),
        [_question(item, f"{where}.{label}[{n}]") for n, item in asked],
    )


def _question(item: Any, where: str) -> Question:
    one = _table(item, where)
    names = ("input_tokens", "output_tokens", "original_session_tokens")
    numbers: dict[str, Any] = {
        name: count
        for name in names
        if isinstance(count := one.get(name), int) and not isinstance(count, bool)
    }
    if one.get("runtimeStats") is not None:
        numbers["runtime_stats"] = json.loads(json.dumps(one["runtimeStats"], default=float))
    return Question(_span(one.get("time"), f"{where}.time"), numbers, str(one.get("output") or ""))


def _span(value: Any, where: str) -> Span:
    one = _table(value, where)
    start = _moment(one.get("start"), f"{where}.start")
    return Span(start, start + seconds_to_ns(one.get("duration"), f"{where}.duration"))


def _moment(value: Any, where: str) -> int:
    if isinstance(value, str) and "T" in value:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise DataError(f"{where}: expected a date and time of ISO 8601, got {value[:40]!r}") from None
        since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
        seconds = Decimal(since.days * 86400 + since.seconds) + Decimal(since.microseconds) / 1_000_000
        return seconds_to_ns(seconds, where)
    return seconds_to_ns(value, where)


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MOST:
        got = f"{len(value)} of them" if isinstance(value, list) else type(value).__name__
        raise DataError(f"{where}: expected a list of at most {MOST}, got {got}")
    return value


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    return value

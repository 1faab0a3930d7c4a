"""A comparison in words, tables and plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from melt_stream.analysis.compare.comparing import Comparison, Result
from melt_stream.analysis.compare.statistics import Difference
from melt_stream.analysis.wording import NOTHING, count, measured, number

HEADERS = ("metric", "A", "B", "difference", "95 % interval", "p", "n")


def tables(told: Comparison) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield titles, headers and rows: what differs first, then each side against the first."""
    if told.differing:
        headers = ["differs", *(side.name for side in told.sides)]
        yield "What else differs", headers, [[row.key, *row.values] for row in told.differing]
    for side in told.sides[1:]:
        rows = [_cells(result) for result in told.results if result.side == side.name]
        yield f"{side.name} (B) against {told.sides[0].name} (A)", list(HEADERS), rows


def notes(told: Comparison) -> list[str]:
    """Return the sentences that belong below: what a repetition is, meters, what must not be compared, budgets."""
    counts = " and ".join(f"{count(len(side.runs), 'run')} of {side.name}" for side in told.sides)
    found = [f"Compared: {counts}; a repetition is a {told.by}.", *told.warnings]
    found += dict.fromkeys(f"{one.metric} is not compared: {one.why}." for one in told.results if one.why)
    if any(one.difference is not None and min(one.difference.counts) < 2 for one in told.results):
        found.append(
            "Where n is 1 the interval is that of measuring alone: one value says nothing of scatter."
        )
    for verdict in told.verdicts:
        unit = "x" if verdict.budget.ratio else ""
        reach = f"[{number(verdict.low)}, {number(verdict.high)}]{unit}"
        found.append(
            f"Budget {verdict.budget.text}: {verdict.word} by {verdict.side} ({number(verdict.value)}{unit}, 95 % in {reach})."
        )
    return found


def payload(told: Comparison) -> dict[str, Any]:
    """Return all of it as plain values for JSON."""
    return {
        "sides": [
            {"name": side.name, "device": side.device, "runs": [run.id for run in side.runs]} for side in told.sides
        ],
        "repetition": told.by,
        "differing": {row.key: dict(zip((s.name for s in told.sides), row.values, strict=True)) for row in told.differing},
        "results": [_plain(result) for result in told.results],
        "notes": notes(told),
        "budgets": [
            {"budget": v.budget.text, "side": v.side, "value": v.value, "low": v.low, "high": v.high, "verdict": v.word}
            for v in told.verdicts
        ],
    }  # fmt: skip


def _plain(result: Result) -> dict[str, Any]:
    told = result.difference
    base = {"metric": result.metric, "side": result.side, "refused": result.why or None}
    if told is None:
        return base
    return base | {
        "a": told.a, "b": told.b, "a_u": told.a_u, "b_u": told.b_u, "relative": told.relative, "change": told.change,
        "low": told.low, "high": told.high, "p": told.p, "pairs": told.pairs, "counts": list(told.counts),
    }  # fmt: skip


def _cells(result: Result) -> list[str]:
    told = result.difference
    if told is None:
        return [result.metric, *[NOTHING] * 4, NOTHING, result.why or NOTHING]
    interval = NOTHING
    if told.low is not None and told.high is not None and told.low != told.high:
        interval = f"{_change(told, told.low)} to {_change(told, told.high)}"
    n = count(told.pairs, "pair") if told.pairs else f"{told.counts[0]} and {told.counts[1]}"
    return [
        result.metric, _value(told.a, told.a_u), _value(told.b, told.b_u), _change(told, told.change), interval, _p(told.p), n
    ]  # fmt: skip


def _value(value: float, u: float | None) -> str:
    return number(value) if u is None else measured(value, u)


def _change(told: Difference, change: float) -> str:
    if not math.isfinite(change):
        return NOTHING
    sign = "+" if change > 0 else ""
    return f"{sign}{100 * change:.2f} %" if told.relative else f"{sign}{number(change)}"


def _p(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"

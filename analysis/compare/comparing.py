"""A comparison: every metric that both sides know, each side against the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melt_stream.analysis.compare.budget import Budget, Verdict
from melt_stream.analysis.compare.common import own_u, ratio_u, same_meter, unstated
from melt_stream.analysis.compare.differing import Differing, differing
from melt_stream.analysis.compare.observed import COLUMNS, ENERGY, Observation, Side, value
from melt_stream.analysis.compare.statistics import Difference, difference, typical
from melt_stream.errors import ConfigError

SHOWN = (
    "request.j_per_token", "request.net_joules", "prefill.j_per_token", "decode.j_per_token", "decode.mean_w", "prefill.tokens_per_s",
    "decode.tokens_per_s", "request.ttft_s", "decode.itl_p50_s", "decode.itl_p95_s", "window.joules", "window.seconds", "run.joules",
    "run.seconds",
)  # fmt: skip
"""Metrics that are compared where none is asked for."""
FEW = 2
"""From so many runs of each side on, a run is a repetition; with fewer, each request is one."""


@dataclass(frozen=True)
class Result:
    """One metric of one side against the first."""

    metric: str
    side: str
    difference: Difference | None
    """None where one of the sides does not know the metric, or ``why`` says why it must not be compared."""
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that there is to say; the first side is what the others are compared with."""

    sides: tuple[Side, ...]
    by: str
    """``run`` or ``request``: what one repetition is."""
    differing: tuple[Differing, ...]
    results: tuple[Result, ...]
    warnings: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


def compare(
    sides: Sequence[Side], *, metrics: Sequence[str] = (), budgets: Sequence[Budget] = (), mixed: bool = False
) -> Comparison:
    """Compare each side with the first, and judge the budgets by the last.

    Energies of different boundaries, or estimated and measured ones, are not compared unless ``mixed``. Raises ``ConfigError`` for a
    metric that does not exist.
    """
    wanted = [*dict.fromkeys([*(metrics or SHOWN), *(budget.metric for budget in budgets)])]
    for metric in wanted:
        _check(metric, sides)
    by = "run" if all(len(side.runs) >= FEW for side in sides) else "request"
    results = [_result(metric, sides[0], other, by, mixed) for other in sides[1:] for metric in wanted]
    return Comparison(
        tuple(sides), by, tuple(differing(sides)),
        tuple(one for one in results if one.difference is not None or one.why or metrics),
        tuple(_warnings(sides)),
        tuple(_verdict(budget, sides, by, results) for budget in budgets),
    )  # fmt: skip


def _check(metric: str, sides: Sequence[Side]) -> None:
    phase, _, column = metric.rpartition(".")
    known = {phase for side in sides for phase in side.phases}
    if column not in COLUMNS or (phase not in known and metric not in SHOWN):
        raise ConfigError(
            f"expected PHASE.METRIC of the phases {', '.join(sorted(known))} and the metrics {', '.join(COLUMNS)}, got {metric!r}"
        )


def _result(metric: str, first: Side, other: Side, by: str, mixed: bool) -> Result:
    phase, _, column = metric.rpartition(".")
    if column in ENERGY and not mixed and (why := unlike(first, other)):
        return Result(metric, other.name, None, why)
    by = "run" if phase in ("run", "baseline", "load", "tail", "idle") else by
    a, b, paired = values(metric, first, other, by)
    if not a or not b:
        return Result(metric, other.name, None)
    u = ratio_u(first, other, phase, of(column)) if column in ENERGY else 0.0
    repeated = min(len(a), len(b)) > 1
    return Result(metric, other.name, difference(a, b, paired=paired, u=u, repeated=repeated))


def unlike(a: Side, b: Side) -> str:
    """Say why the energies of two sides must not be compared; empty where they may."""
    accounts = a.accounts | b.accounts
    if len({estimated for _, estimated in accounts}) > 1:
        return "one is estimated by a model, the other measured"
    if len(boundaries := sorted({boundary for boundary, _ in accounts})) > 1:
        return f"measured at different boundaries: {', '.join(boundaries)}"
    return ""


def of(column: str) -> str:
    """Return the column of joules that an energy metric is made of."""
    return "net_joules" if column == "net_joules" else "joules"


def values(metric: str, first: Side, other: Side, by: str) -> tuple[list[float], list[float], bool]:
    """Return the values of both sides, and whether those at one place are a pair."""
    a, b = (_known(side, metric, by) for side in (first, other))
    left = {one.key: x for one, x in a if one.key is not None}
    right = {one.key: x for one, x in b if one.key is not None}
    both = sorted(left.keys() & right.keys())
    if both and len(left) == len(a) and len(right) == len(b) and len(both) == max(len(a), len(b)):
        return [left[key] for key in both], [right[key] for key in both], True
    return [x for _, x in a], [x for _, x in b], False


def _known(side: Side, metric: str, by: str) -> list[tuple[Observation, float]]:
    observations = side.by_run if by == "run" else side.by_request
    found = ((one, value(one, metric)) for one in observations)
    return [(one, x) for one, x in found if x is not None]


def _warnings(sides: Sequence[Side]) -> Iterable[str]:
    for other in sides[1:]:
        if why := unlike(sides[0], other):
            yield f"The energies of {sides[0].name} and {other.name} are not alike: {why}."
        elif same_meter(sides[0], other):
            yield (
                f"One meter measured {sides[0].name} and {other.name}, as far as their runs tell: its gain error cancels in the ratio."
            )
    for side in sides:
        if side.accounts and unstated(side, "run"):
            yield f"{side.name}: the accuracy of what measured it is stated nowhere; intervals hold only what is known."


def _verdict(budget: Budget, sides: Sequence[Side], by: str, results: Sequence[Result]) -> Verdict:
    last = sides[-1]
    if budget.ratio:
        if len(sides) < 2:
            raise ConfigError(f"--budget {budget.text!r}: expected another side to compare with, got one")
        (found,) = [one for one in results if (one.metric, one.side) == (budget.metric, last.name)]
        told = found.difference
        if told is None or not told.relative:
            return Verdict(budget, last.name, None, None, None, "undecidable")
        middle, low, high = (None if x is None else 1 + x for x in (told.change, told.low, told.high))
    else:
        middle, low, high = own(last, budget.metric, by)
    return Verdict(budget, last.name, middle, low, high, budget.judge(middle, low, high))


def own(side: Side, metric: str, by: str) -> tuple[float | None, float | None, float | None]:
    """Return a side's typical value with its 95 % interval: scatter and all of the meter's uncertainty."""
    phase, _, column = metric.rpartition(".")
    by = "run" if phase == "run" else by
    found = [x for _, x in _known(side, metric, by)]
    if not found:
        return None, None, None
    u = own_u(side, phase, of(column)) if column in ENERGY else 0.0
    return typical(found, u)

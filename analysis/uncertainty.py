"""Uncertainty in a form that adds up: an independent part a row, and factors that rows have in common.

For any set of rows, with one sum S over rows for every factor row (GUM, JCGM 100:2008, 5.1 and 5.2)::

    u^2 = sum over factor names of (sum of u x S)^2 + sum of joules_var

where S is what the factor's unit says: joules for "1" (gain, model), seconds for "W" (offset, model),
joules_per_clock for "s" (clock). Factor rows of one name are one random quantity. What is not known (u null) is not
in the sum: the flag ``unstated`` says so.

*Independent part.* A sample's noise of standard deviation s enters with its weight in the integral: sample i of a
gauge stands for W_i = half the time to both neighbours, so a row that holds the part w_i of that gets
s^2 w_i W_i: rows that follow each other then add up to the exact variance s^2 sum W_i^2, while for a row alone it is
at most too large, by the sample that it shares with each neighbour. For ``mean`` and ``delta`` W_i is the window.

*Sampling.* Between samples a gauge did not look. Each sample's deviation from the line through its neighbours says
how much is missed: s_i^2 = e_i^2 / (1 + a^2 + b^2), e_i = a p[i-1] + b p[i+1] - p[i] (Gasser, Sroka and
Jennen-Steinmetz, Biometrika 73 (1986) 625). It contains the noise. Where samples were taken at random moments
(the spacing's spread is at least 0.2 of it) the errors are independent, and this s_i^2, averaged over 15 neighbours,
replaces the declared noise where it is larger. On a regular grid it may beat against the load and never average out:
what exceeds the declared noise is then one fully correlated factor (kind model, W).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.integrate import Pieces, RailData, watts
from melt_stream.analysis.kernels import fixed

Array = np.ndarray[Any, Any]
JITTERED = 0.2
"""Spread of the spacing, over its mean, from which on samples count as taken at random moments. Uniform in the whole
slot gives 0.41, in half of it 0.2."""
ESTIMATED_U = 0.5
"""Relative uncertainty of a model of power that states none: it may be off by a factor of two."""
BOX = 15
"""Samples over which the scatter is averaged."""
MOST_SCATTER = 0.99
"""Steps of the load are not scatter: a factor takes its size from all but the largest hundredth."""

Row = dict[str, Any]


def factor(name: str, kind: str, u: float | None, unit: str, **more: Any) -> Row:
    """Return one row of the table ``factors``; u is None where it is stated nowhere."""
    told = {
        "factor": name, "kind": kind, "u": u, "unit": unit, "shape": "normal", "applies": "both", "dof": None,
        "request": None, "source": "unknown" if u is None else "", "shared_with": "all rows of the rail",
    }  # fmt: skip
    return told | more


def rail_factors(rail: RailData, aliasing: float, rate: float) -> list[Row]:
    """Return what the rail's facts say of its errors; ``aliasing`` in W, ``rate``: relative error of its seconds."""
    facts, name = rail.facts, rail.label
    source = str(facts.get("source") or "")
    gain, offset, resolution = (facts.get(k) for k in ("gain", "offset", "resolution"))
    found: list[Row] = []
    if facts.get("estimated"):
        u, why = (
            (gain, source)
            if gain
            else (ESTIMATED_U, "assumed: a model that states no accuracy may be off by two")
        )
        found.append(factor(f"model {name}", "model", float(u), "1", source=why))
    else:
        found.append(
            factor(f"gain {name}", "gain", gain, "1", source=source if gain is not None else "unknown")
        )
    if not facts.get("estimated") or offset is not None:
        found.append(
            factor(
                f"offset {name}",
                "offset",
                offset,
                "W",
                applies="joules",
                source=source if offset is not None else "unknown",
            )
        )
    if resolution and facts.get("kind") in ("gauge", "mean"):
        found.append(
            factor(
                f"resolution {name}",
                "offset",
                resolution / math.sqrt(12),
                "W",
                shape="uniform",
                source="half a step",
            )
        )
    if aliasing:
        found.append(
            factor(
                f"sampling {name}",
                "model",
                aliasing,
                "W",
                source="regular grid: scatter between samples, as if it beat",
            )
        )
    if rate:
        found.append(
            factor(f"rate {name}", "gain", rate, "1", shape="uniform", source="drift of the rail's clock")
        )
    return found


def add_noise(rail: RailData, made: Pieces, rows: slice) -> float:
    """Give ``made`` its variance; return the part of a gauge's sampling error that may not average out, in W."""
    noise = float(rail.facts.get("noise") or 0.0) ** 2
    kind = rail.facts.get("kind")
    if kind == "gauge":
        return _gauge_noise(made, watts(rail, rows), noise)
    length = (made.right - made.left).astype(np.float64)
    if kind == "delta":  # noise in J a sample
        each = noise / made.unit_s**2
        made.rate = fixed(np.divide(each, length, out=np.zeros(len(length)), where=length > 0), np.float64)
    elif kind == "mean":
        made.rate = fixed(noise * length, np.float64)
    return 0.0


def edge_variance(rail: RailData) -> float:
    """Variance of a row from a counter's steps, J^2: it is read at two edges, each off by up to a half step."""
    step = rail.facts.get("resolution") if rail.facts.get("kind") == "counter" else None
    return float(step) ** 2 / 6 if step else 0.0


def _gauge_noise(made: Pieces, power: Array, noise: float) -> float:
    length = np.asarray(made.right - made.left, np.float64)
    covered = (length <= made.limit) & np.isfinite(power[1:] + power[:-1])
    length = np.where(covered, length, 0.0)
    scatter, seen = _scatter(length, power)
    jittered = bool(covered.any()) and float(np.std(length[covered])) >= JITTERED * float(
        np.mean(length[covered])
    )
    aliasing = 0.0
    per_sample = np.full(len(power), noise)
    if seen.any():
        some = scatter[seen]
        typical = float(np.mean(some[some <= np.quantile(some, MOST_SCATTER)]))
        if jittered and float(np.mean(scatter[seen])) > noise:
            per_sample = _smooth(scatter, seen)
        elif not jittered:
            chance = noise * (
                1 + 3 * math.sqrt(3 / len(some))
            )  # what noise alone may look like, 3 standard errors
            aliasing = math.sqrt(max(typical - chance, 0.0))
            aliasing = aliasing if aliasing > 1e-9 * float(np.max(np.abs(power[seen]))) else 0.0
    stands = np.zeros(len(power))
    stands[:-1] += length / 2
    stands[1:] += length / 2
    weighted = per_sample * stands
    made.rate = fixed((weighted[:-1] + weighted[1:]) / 2, np.float64)
    return aliasing


def _scatter(length: Array, power: Array) -> tuple[Array, Array]:
    """Squared deviation of each sample from the line through its neighbours, and where it could be told."""
    scatter, seen = np.zeros(len(power)), np.zeros(len(power), bool)
    if len(power) < 3:
        return scatter, seen
    before, after = length[:-1], length[1:]
    good = (before > 0) & (after > 0)
    a = after[good] / (before + after)[good]
    deviation = a * power[:-2][good] + (1 - a) * power[2:][good] - power[1:-1][good]
    seen[1:-1] = good
    scatter[1:-1][good] = deviation**2 / (1 + a**2 + (1 - a) ** 2)
    return scatter, seen


def _smooth(scatter: Array, seen: Array) -> Array:
    box = np.ones(min(BOX, len(scatter)))
    total, count = np.convolve(scatter, box, "same"), np.convolve(seen.astype(np.float64), box, "same")
    usual = float(np.mean(scatter[seen]))
    return np.where(count > 0, total / np.maximum(count, 1.0), usual)


def clock_u(low: Array, high: Array) -> float | None:
    """Standard uncertainty of a shift that lies anywhere in [low, high] around 0, in s; None where it has no bound."""
    if not len(low):
        return 0.0
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return math.sqrt(float(np.max((low * low + low * high + high * high) / 3))) * 1e-9


_SUMS = {"1": "joules", "W": "seconds", "s": "joules_per_clock"}
_PLACE = ("run", "device", "sensor", "rail")


def joules_u_of(rows: Iterable[Mapping[str, Any]], factors: pa.Table, of: str = "joules") -> float | None:
    """Return the standard uncertainty of the rows' summed joules (or ``of="net_joules"``), with what they share.

    ``rows`` have the energy columns, and run, device, sensor, rail and request where they know them; rows of several
    rails are added as if all belonged to the sum. None where no row has joules.
    """
    groups, independent = _grouped(rows, of)
    if not groups:
        return None
    by_request: dict[Any, list[tuple[Any, ...]]] = {}
    for key in groups:
        by_request.setdefault(key[-1], []).append(key)
    parts: dict[str, float] = {}
    for told in factors.to_pylist():
        if told["u"] is None or told["applies"] not in (None, "both", of):
            continue
        request = told["request"]
        near = groups if request is None else by_request.get(request, [])
        total = math.fsum(groups[key][told["unit"]] for key in near if _meant(told, key))
        parts[told["factor"]] = parts.get(told["factor"], 0.0) + told["u"] * total
    return math.sqrt(math.fsum(p * p for p in parts.values()) + independent)


def _grouped(
    rows: Iterable[Mapping[str, Any]], of: str
) -> tuple[dict[tuple[Any, ...], dict[str, float]], float]:
    """Sum what factors multiply over rows of the same place and request; and the independent variance of all."""
    listed: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    variance = []
    for row in rows:
        if row.get(of) is None:
            continue
        group = listed.setdefault(
            tuple(row.get(name) for name in (*_PLACE, "request")), {unit: [] for unit in _SUMS}
        )
        for unit, column in _SUMS.items():
            value = row.get(of if unit == "1" else column)
            group[unit].append(0.0 if value is None else value)
        variance.append(row.get("joules_var") or 0.0)
    sums = {key: {unit: math.fsum(values) for unit, values in group.items()} for key, group in listed.items()}
    return sums, math.fsum(variance)


def _meant(told: Mapping[str, Any], key: tuple[Any, ...]) -> bool:
    """Tell whether a factor applies to rows of this place; what either does not say does not keep them apart."""
    return all(
        not told[name] or have is None or told[name] == have for name, have in zip(_PLACE, key, strict=False)
    )


def alone(
    factors: list[Row], joules: Array, seconds: Array, per_clock: Array, variance: Array, request: Array
) -> Array:
    """Return each row's own uncertainty by the same rule; ``factors`` are those of its rail."""
    square = variance.copy()
    by_request: dict[int, float] = {}
    columns = {"1": joules, "W": seconds, "s": per_clock}
    for told in factors:
        if told["u"] is None or told["applies"] == "net_joules":
            continue
        if told["request"] is None:
            square += (told["u"] * columns[told["unit"]]) ** 2
        else:  # clocks of single requests: many, each for few rows
            by_request[told["request"]] = by_request.get(told["request"], 0.0) + told["u"] ** 2
    if by_request:
        numbers = np.array(sorted(by_request))
        place = np.clip(np.searchsorted(numbers, request), 0, len(numbers) - 1)
        u2 = np.array([by_request[n] for n in numbers.tolist()])[place]
        square += np.where(numbers[place] == request, u2, 0.0) * per_clock**2
    return np.asarray(np.sqrt(square))

"""The phases of a run, summed over its requests: one row a phase and device, with the uncertainty of the sum.

Requests that involve several devices have rows of all of them together besides.

The derived tables of a packed run go in (DESIGN section 4), plain values come out; nothing here reads a stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from melt_stream.analysis.together import one_boundary, shared
from melt_stream.analysis.uncertainty import joules_u_of
from melt_stream.analysis.wording import NOTHING

ORDER = (
    "baseline", "load", "warmup", "queue", "prefill", "decode", "request", "window", "marker", "other", "tail",
    "idle", "run",
)  # fmt: skip
"""Phases as they are printed; ``request`` is queue + prefill + decode, ``run`` is everything."""
WORST_FIRST = ("missing", "estimated", "partial", "interpolated", "measured")
ENOUGH = 0.99
"""Coverage from which on J/token and mean W are given (DESIGN section 5)."""
JOULES_PER_MWH = 3.6


class Derived(Protocol):
    """What is needed of a packed :class:`melt_stream.run.Run`."""

    @property
    def id(self) -> str: ...
    def table(self, key: str, columns: list[str] | None = None) -> pa.Table: ...


@dataclass(frozen=True)
class Row:
    """One phase of one device, summed over its ``requests``; what is not known is None."""

    device: str
    phase: str
    name: str | None
    requests: int
    duration_s: float
    """From start to stop, added up: requests that overlap count each. Of the whole run, what elapsed."""
    seconds: float | None
    """Of these, covered by samples."""
    joules: float | None
    joules_u: float | None
    """Of what the rows have in common and what is each row's own (the rule of ``joules_u_of``)."""
    net_joules: float | None
    net_joules_u: float | None
    mean_w: float | None
    tokens: int | None
    joules_per_token: float | None
    joules_per_token_u: float | None
    mwh_per_token: float | None
    tokens_per_s: float | None
    ttft_s: float | None
    """As the client saw it; the median over requests."""
    itl_p50_s: float | None
    itl_p95_s: float | None
    coverage: float | None
    quality: str
    flags: tuple[str, ...]
    sensor: str | None
    rail: str | None
    boundary: str | None
    estimated: bool
    devices: tuple[str, ...]
    """One, or those that have a part in the requests, together."""

    @property
    def joules_per_request(self) -> float | None:
        """Of requests; None where too little of them was covered."""
        if not self.requests or self.joules is None or not self.coverage or self.coverage < ENOUGH:
            return None
        return self.joules / self.coverage / self.requests

    @property
    def where(self) -> str:
        """The boundary in words, and whether a model stood in for a sensor."""
        if self.boundary is None:
            return NOTHING
        return f"{self.boundary}, estimated" if self.estimated else self.boundary


def rows_of(run: Derived) -> list[Row]:
    """Return one row a phase and device, in the order in which they are printed."""
    phases = run.table("phases").to_pylist()
    groups = _groups(phases) | _groups_of_several(phases)
    requests = {r["request"]: r for r in run.table("requests").to_pylist()}
    intervals = _token_seconds(run)
    factors = run.table("factors")
    rows = [
        _row(device, phase, name, group, requests, intervals, factors)
        for (device, phase, name), group in groups.items()
    ]
    return sorted(
        rows, key=lambda row: (len(row.devices), row.device, ORDER.index(row.phase), row.name or "")
    )


def _groups(phases: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str | None], list[dict[str, Any]]]:
    groups: dict[tuple[str, str, str | None], list[dict[str, Any]]] = {}
    for row in phases:
        device = row["device"]
        phase, named = _kind(row)
        groups.setdefault((device, phase, named), []).append(row)
        if row["request"] is not None and phase in ("queue", "prefill", "decode"):
            groups.setdefault((device, "request", None), []).append(row)
        groups.setdefault((device, "run", None), []).append(row)
    return groups


def _groups_of_several(
    phases: Sequence[dict[str, Any]],
) -> dict[tuple[str, str, str | None], list[dict[str, Any]]]:
    """What several devices have a part in, by their names together."""
    groups: dict[tuple[str, str, str | None], list[dict[str, Any]]] = {}
    for rows in shared(phases).values():
        device = " + ".join(sorted(row["device"] for row in rows))
        phase, named = _kind(rows[0])
        groups.setdefault((device, phase, named), []).extend(rows)
        if phase in ("queue", "prefill", "decode"):
            groups.setdefault((device, "request", None), []).extend(rows)
    return groups


def _kind(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The printed phase; a name of the runtime's or the user's is a row of its own."""
    if row["phase"] not in ORDER:
        return "other", row["phase"]
    return row["phase"], row["name"] if row["phase"] in ("other", "marker") else None


def _row(
    device: str,
    phase: str,
    name: str | None,
    group: list[dict[str, Any]],
    requests: Mapping[int, dict[str, Any]],
    token_seconds: Mapping[int, np.ndarray],
    factors: pa.Table,
) -> Row:
    devices = tuple(sorted({g["device"] for g in group}))
    several = len(devices) > 1
    added = not several or one_boundary(group) is not None
    times = [g for g in group if g["device"] == devices[0]]  # as long for one as for all
    mine = [requests[r] for r in sorted({g["request"] for g in group} & requests.keys())]
    lasted = _lasted(phase, times)
    covered = _sum((g["seconds"] or 0.0) / len(devices) for g in group if g["seconds"] is not None)
    joules = _sum((g["joules"] for g in group), all_of_them=several) if added else None
    net = (
        _sum((g["net_joules"] for g in group if g["joules"] is not None), all_of_them=True) if added else None
    )
    u = joules_u_of(group, factors) if joules is not None else None
    coverage = _coverage(group)
    enough = joules is not None and coverage is not None and coverage >= ENOUGH
    tokens = _tokens(phase, times, mine)
    per_token = joules / coverage / tokens if enough and joules and coverage and tokens else None
    itl = _itl(phase, mine, token_seconds)
    measured_by = next((g for g in group if g["rail"] is not None), group[0])
    return Row(
        device=device,
        phase=phase,
        name=name,
        requests=len(mine),
        duration_s=lasted,
        seconds=covered,
        joules=joules,
        joules_u=u,
        net_joules=net,
        net_joules_u=None if net is None else joules_u_of(group, factors, "net_joules"),
        mean_w=joules / covered if enough and joules is not None and covered else None,
        tokens=tokens,
        joules_per_token=per_token,
        joules_per_token_u=u / coverage / tokens
        if per_token is not None and u and coverage and tokens
        else None,
        mwh_per_token=None if per_token is None else per_token / JOULES_PER_MWH,
        tokens_per_s=tokens / lasted if tokens and lasted > 0 else None,
        ttft_s=_median(r["ttft_s"] for r in mine) if phase in ("prefill", "request") else None,
        itl_p50_s=itl[0],
        itl_p95_s=itl[1],
        coverage=coverage,
        quality=_quality(group, coverage),
        flags=tuple(sorted({flag for g in group for flag in g["flags"] or ()})),
        sensor=None if several else measured_by["sensor"],
        rail=None if several else measured_by["rail"],
        boundary=one_boundary(group) if several else measured_by["boundary"],
        estimated=any(g["estimated"] for g in group),
        devices=devices,
    )


def _quality(group: Sequence[Mapping[str, Any]], coverage: float | None) -> str:
    """The worst of what was measured. A part that was not lowers the coverage; only all of them make it missing."""
    known = [g["quality"] for g in group if g["quality"] and g["quality"] != "missing"]
    if known and (coverage is None or coverage < ENOUGH):
        known.append("partial")
    return min(known, key=WORST_FIRST.index, default="missing")


def _lasted(phase: str, group: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from start to stop; of the whole run what elapsed, of idle time only what is in no other phase."""
    if phase == "run":
        return float(max(g["stop_ns"] for g in group) - min(g["start_ns"] for g in group)) / 1e9
    if phase == "idle":
        return math.fsum(_own_seconds(g) for g in group)
    return math.fsum(_span(g) for g in group)


def _coverage(group: Sequence[Mapping[str, Any]]) -> float | None:
    """Covered seconds by all seconds, both shared among phases that overlap."""
    of = math.fsum(_own_seconds(g) for g in group)
    return min(math.fsum(g["seconds"] or 0.0 for g in group) / of, 1.0) if of > 0 else None


def _own_seconds(row: Mapping[str, Any]) -> float:
    return float(row["seconds"] / row["coverage"]) if row["seconds"] and row["coverage"] else _span(row)


def _span(row: Mapping[str, Any]) -> float:
    return float(row["stop_ns"] - row["start_ns"]) / 1e9


def _tokens(phase: str, group: list[dict[str, Any]], mine: list[dict[str, Any]]) -> int | None:
    """Of a phase its own; of whole requests the output: J per output token is what papers quote."""
    if phase == "run":
        return None
    if phase == "request":
        return _total(r["output_tokens"] for r in mine)
    return _total(g["tokens"] for g in group)


def _itl(phase: str, mine: list[dict[str, Any]], token_seconds: Mapping[int, np.ndarray]) -> tuple[Any, Any]:
    if phase not in ("decode", "request"):
        return None, None
    if len(mine) == 1:
        return mine[0]["itl_p50_s"], mine[0]["itl_p95_s"]
    pooled = [token_seconds[r["request"]] for r in mine if r["request"] in token_seconds]
    if not pooled:
        return None, None
    p50, p95 = np.quantile(np.concatenate(pooled), [0.5, 0.95])
    return float(p50), float(p95)


def _token_seconds(run: Derived) -> dict[int, np.ndarray]:
    """Time per token after the first, by request; the tokens of one step share its time."""
    tokens = run.table("tokens", ["request", "index", "start_ns", "stop_ns", "count"])
    request, index, start, stop, count = (tokens[c].to_numpy() for c in tokens.column_names)
    order = np.lexsort((index, request))
    order = order[index[order] > 0]
    parts = np.split(order, np.flatnonzero(np.diff(request[order])) + 1)
    return {int(request[mine[0]]): ((stop - start) / count)[mine] / 1e9 for mine in parts if len(mine)}


def _sum(values: Iterable[float | None], *, all_of_them: bool = False) -> float | None:
    """The sum of what is known; None where nothing is, or where something is not and all must be."""
    listed = list(values)
    known = [v for v in listed if v is not None and math.isfinite(v)]
    if not known or (all_of_them and len(known) < len(listed)):
        return None
    return math.fsum(known)


def _total(values: Iterable[int | None]) -> int | None:
    listed = [v for v in values if v is not None]
    return sum(listed) if listed else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.median(known)) if known else None

"""What ``melt-stream run`` and ``melt-stream energy`` print: one row a phase, summed over a run's requests.

The derived tables of a packed run go in (DESIGN section 4), plain values come out; nothing here reads a stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from melt_stream.analysis.wording import NOTHING, measured, number, percent, seconds

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

    @property
    def where(self) -> str:
        """The boundary in words, and whether a model stood in for a sensor."""
        if self.boundary is None:
            return NOTHING
        return f"{self.boundary}, estimated" if self.estimated else self.boundary


@dataclass(frozen=True)
class Summary:
    """The table of one run, and the sentences that belong below it."""

    run: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def measured_power(self) -> bool:
        """False where no row has joules: then there is no answer, and the command line exits with 3."""
        return any(row.joules is not None for row in self.rows)


def summarise(run: Derived) -> Summary:
    """Sum the phases of a packed run over its requests."""
    phases = run.table("phases").to_pylist()
    requests = {r["request"]: r for r in run.table("requests").to_pylist()}
    intervals = _token_seconds(run)
    factors = run.table("factors").to_pylist()
    rows = [
        _row(device, phase, name, group, requests, intervals, factors)
        for (device, phase, name), group in _groups(phases).items()
    ]
    rows.sort(key=lambda row: (row.device, ORDER.index(row.phase), row.name or ""))
    return Summary(run.id, tuple(rows), tuple(_notes(rows)))


def payload(run: Derived) -> dict[str, Any]:
    """What ``melt-stream energy --json`` prints: the derived rows under the column names of DESIGN section 4."""
    return {
        "run": run.id,
        "phases": [_plain(row) for row in run.table("phases").to_pylist()],
        "tokens": [_plain(row) for row in run.table("tokens").to_pylist()],
    }


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Headers and cells as text, without the columns that say nothing in this run."""
    columns = [(header, [cell(row) for row in summary.rows]) for header, cell in _COLUMNS.items()]
    devices = {row.device for row in summary.rows}
    keep = [
        (header, cells)
        for header, cells in columns
        if any(cell != NOTHING for cell in cells) and (header != "device" or len(devices) > 1)
    ]
    return [header for header, _ in keep], [list(cells) for cells in zip(*(c for _, c in keep), strict=True)]


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "device": lambda row: row.device,
    "phase": lambda row: row.phase if row.name is None else f"{row.phase}: {row.name}",
    "duration": lambda row: seconds(row.duration_s),
    "energy / J": lambda row: measured(row.joules, row.joules_u),
    "net / J": lambda row: measured(row.net_joules, row.net_joules_u),
    "mean / W": lambda row: number(row.mean_w),
    "tokens": lambda row: NOTHING if row.tokens is None else f"{row.tokens:,}",
    "J/token": lambda row: measured(row.joules_per_token, row.joules_per_token_u),
    "mWh/token": lambda row: number(row.mwh_per_token),
    "boundary": lambda row: row.where,
    "tokens/s": lambda row: number(row.tokens_per_s),
    "TTFT": lambda row: seconds(row.ttft_s),
    "ITL p50": lambda row: seconds(row.itl_p50_s),
    "ITL p95": lambda row: seconds(row.itl_p95_s),
    "coverage": lambda row: percent(row.coverage),
    "quality": lambda row: ", ".join((row.quality, *row.flags)),
}


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
    factors: Sequence[Mapping[str, Any]],
) -> Row:
    mine = [requests[r] for r in sorted({g["request"] for g in group} & requests.keys())]
    lasted = _lasted(phase, group)
    covered = _sum(g["seconds"] for g in group)
    joules = _sum(g["joules"] for g in group)
    net = _sum((g["net_joules"] for g in group), all_of_them=True)
    u = joules_u(group, factors)
    coverage = _coverage(group)
    enough = joules is not None and coverage is not None and coverage >= ENOUGH
    tokens = _tokens(phase, group, mine)
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
        joules_u=None if joules is None else u,
        net_joules=net,
        net_joules_u=None if net is None else joules_u(group, factors, "net_joules"),
        mean_w=joules / covered if enough and joules is not None and covered else None,
        tokens=tokens,
        joules_per_token=per_token,
        joules_per_token_u=u / coverage / tokens if per_token is not None and coverage and tokens else None,
        mwh_per_token=None if per_token is None else per_token / JOULES_PER_MWH,
        tokens_per_s=tokens / lasted if tokens and lasted > 0 else None,
        ttft_s=_median(r["ttft_s"] for r in mine) if phase in ("prefill", "request") else None,
        itl_p50_s=itl[0],
        itl_p95_s=itl[1],
        coverage=coverage,
        quality=min((g["quality"] for g in group if g["quality"]), key=WORST_FIRST.index, default="missing"),
        flags=tuple(sorted({flag for g in group for flag in g["flags"] or ()})),
        sensor=measured_by["sensor"],
        rail=measured_by["rail"],
        boundary=measured_by["boundary"],
        estimated=any(g["estimated"] for g in group),
    )


def joules_u(
    rows: Sequence[Mapping[str, Any]], factors: Sequence[Mapping[str, Any]], of: str = "joules"
) -> float:
    """Standard uncertainty of the sum of ``of`` over derived rows, in J: the macro ``joules_u_of`` of the views.

    What rows have in common adds up before it is squared, by the factor's name; ``joules_var`` adds up as it is.
    """
    per = {"1": of, "W": "seconds", "s": "joules_per_clock"}
    shared: dict[str, float] = {}
    for factor in factors:
        if factor["u"] is None or factor["applies"] not in (of, "both"):
            continue
        total = math.fsum(row[per[factor["unit"]]] or 0.0 for row in rows if _applies(factor, row))
        shared[factor["factor"]] = shared.get(factor["factor"], 0.0) + factor["u"] * total
    own = math.fsum(row["joules_var"] or 0.0 for row in rows)
    return math.sqrt(math.fsum(part * part for part in shared.values()) + own)


def _applies(factor: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    same = all(factor[k] is None or factor[k] == row[k] for k in ("device", "sensor", "rail"))
    return same and factor["request"] in (None, row["request"])


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


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not a number is not known."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _notes(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Nothing happened in this run: it has no phases."]
    notes = []
    for device in dict.fromkeys(row.device for row in rows):
        mine = [row for row in rows if row.device == device]
        notes += _energy_notes(device, mine)
    return notes


def _energy_notes(device: str, rows: list[Row]) -> list[str]:
    whole = next((row for row in rows if row.phase == "run"), rows[-1])
    if whole.joules is None:
        return [
            f"Nothing measured the power of {device}: there are no joules. `melt-stream doctor` says what could."
        ]
    total = f"{whole.sensor}/{whole.rail} at the boundary {whole.boundary}"
    notes = [f"Energy of {device}: the rail {total}; every J/token is energy at that boundary."]
    if whole.estimated:
        notes.append(
            f"This energy is estimated: a model stands in for a sensor, nothing measured the power of {device}."
        )
    if whole.net_joules is None:
        notes.append(f"There is no net energy of {device}: no idle baseline was measured for all of it.")
    else:
        notes.append("Net is less the idle baseline measured before and after.")
    if any(row.phase == "request" for row in rows):
        notes.append(
            "The row request is queue, prefill and decode together; its J/token is per output token."
        )
    if gaps := [row.phase for row in rows if row.coverage is not None and row.coverage < ENOUGH]:
        below = ", ".join(dict.fromkeys(gaps))
        notes.append(
            f"Partial: less than 99 % of {below} was covered by samples, so no J/token and mean W are given; "
            "joules are what was measured."
        )
    return notes

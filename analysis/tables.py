"""What was found out, as rows of the derived tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.energy import Attribution
from melt_stream.analysis.quality import ENOUGH, FLAGS, QUALITIES
from melt_stream.analysis.requests import Log, Request
from melt_stream.analysis.schemas import ENERGY, SCHEMAS, build
from melt_stream.analysis.uncertainty import alone

if TYPE_CHECKING:
    from melt_stream.analysis.derive import Device

Array = np.ndarray[Any, Any]
Columns = dict[str, Any]
_NUMBERS = [f.name for f in ENERGY if f.name not in ("quality", "flags")]
_SUMMED = ("joules", "seconds", "joules_var", "joules_per_clock", "joules_lo", "joules_hi", "net_joules")
NS = 1e-9


def phase_rows(run: str, device: Device) -> pa.Table:
    """The table ``phases``: the account's energy."""
    rows = slice(0, device.listed)
    phases = device.phases[rows]
    columns = _named(run, phases) | _interval(phases) | _energy(device, device.account, rows)
    length = np.array([p.stop - p.start for p in phases]) * NS
    tokens = np.array([np.nan if p.tokens is None else p.tokens for p in phases], float)
    enough = columns["coverage"] >= ENOUGH
    with np.errstate(divide="ignore", invalid="ignore"):
        some = np.where(tokens > 0, tokens, np.nan)
        columns |= {
            "tokens": [p.tokens for p in phases], "tokens_per_s": some / np.where(length > 0, length, np.nan),
            "joules_per_token": np.where(enough, columns["joules"] / columns["coverage"] / some, np.nan),
        }  # fmt: skip
    return build("phases", columns | {"mean_w": _mean_w(columns)}, len(phases))


def rail_rows(run: str, device: Device) -> pa.Table:
    """The table ``phase_rails``: every rail's energy."""
    rows = slice(0, device.listed)
    phases = device.phases[rows]
    tables = []
    for k in range(len(device.rails)):
        columns = _named(run, phases) | _interval(phases) | _energy(device, k, rows)
        columns |= {"account": [k == device.account] * len(phases), "mean_w": _mean_w(columns)}
        tables.append(build("phase_rails", columns, len(phases)))
    return pa.concat_tables(tables) if tables else SCHEMAS["phase_rails"].empty_table()


def token_rows(run: str, device: Device, log: Log) -> pa.Table:
    """The table ``tokens``: first those whose times are known, then the others; in order of request and index."""
    known = [r for r in device.requests if r.tokens is not None and not r.warmup]
    ordered = [*device.timed, *(r for r in known if r.tokens is not None and not r.tokens.placed)]
    parts = [_tokens_of(r, log) for r in ordered]
    total = sum(len(p["index"]) for p in parts)
    if not total:
        return SCHEMAS["tokens"].empty_table()
    columns: Columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0] if name != "text"}
    columns["text"] = [text for p in parts for text in p["text"]]
    timed = len(device.rows) - len(device.phases)
    energy = _energy(device, device.account, slice(len(device.phases), len(device.rows)))
    columns |= {name: _padded(name, values, total - timed) for name, values in energy.items()}
    untimed = np.arange(total) >= timed
    first = np.flatnonzero((columns["step"] == 0) & ~untimed)
    for name in _NUMBERS:
        columns[name][first] = np.nan
    columns["quality"][first] = None
    for name in ("start_ns", "stop_ns"):
        columns[name] = pa.array(columns[name], pa.int64(), mask=untimed)
    columns["run"] = [run] * total
    return build("tokens", columns, total).sort_by([("request", "ascending"), ("index", "ascending")])


def request_rows(run: str, devices: Sequence[Device]) -> pa.Table:
    """The table ``requests``: energies are the sums of the requests' phases."""
    rows = [_request_row(run, device, r) for device in devices for r in device.requests]
    rows.sort(key=lambda row: int(row["request"]))
    return build("requests", {f.name: [r.get(f.name) for r in rows] for f in SCHEMAS["requests"]}, len(rows))


def oracle_rows(run: str, oracles: Sequence[pa.Table], requests: pa.Table) -> pa.Table:
    """The table ``oracles``, with what we attributed to the same request."""
    ours: dict[tuple[Any, str], float | None] = {}
    rates = ("prefill_tokens_per_s", "decode_tokens_per_s")
    needed = ["request", "window_joules", "coverage", "start_ns", "stop_ns", "output_tokens", *rates]
    for r in requests.select(needed).to_pylist():
        joules = r["window_joules"]
        ours |= {(r["request"], name): r[name] for name in rates}
        ours[(r["request"], "joules")] = joules
        if joules is not None and r["output_tokens"]:
            ours[(r["request"], "joules_per_output_token")] = joules / r["output_tokens"]
        if joules is not None and r["coverage"]:
            ours[(r["request"], "mean_w")] = joules / (r["coverage"] * (r["stop_ns"] - r["start_ns"]) * NS)
    rows = [row for table in oracles for row in table.to_pylist()]
    names = ("request", "quantity", "unit", "reported", "recomputed")
    columns: Columns = {name: [row.get(name) for row in rows] for name in names}
    columns |= {
        "run": [run] * len(rows),
        "ours": [ours.get((r.get("request"), str(r.get("quantity")))) for r in rows],
    }
    return build("oracles", columns, len(rows))


def _named(run: str, phases: Sequence[Any]) -> Columns:
    return {
        "run": [run] * len(phases), "request": [p.request for p in phases], "phase": [p.phase for p in phases],
        "name": [p.name for p in phases],
    }  # fmt: skip


def _interval(phases: Sequence[Any]) -> Columns:
    return {"start_ns": [p.start for p in phases], "stop_ns": [p.stop for p in phases]}


def _place(device: Device, rail: int | None) -> Columns:
    if rail is None:
        return {"device": device.name, "sensor": None, "rail": None, "boundary": None, "estimated": False}
    facts = device.rails[rail][0].rail.facts
    return {
        "device": device.name, "sensor": facts.get("sensor_of"), "rail": facts.get("name"),
        "boundary": facts.get("boundary"), "estimated": bool(facts.get("estimated")),
    }  # fmt: skip


def _energy(device: Device, rail: int | None, rows: slice) -> Columns:
    """The place and the energy columns of some rows; where there is no rail, all unknown."""
    count = len(range(*rows.indices(len(device.rows))))
    columns: Columns = {name: [value] * count for name, value in _place(device, rail).items()}
    if rail is None:
        columns |= {name: np.full(count, np.nan) for name in _NUMBERS}
        return columns | {
            "coverage": np.zeros(count),
            "quality": np.full(count, "missing", object),
            "flags": [[]] * count,
        }
    found = device.rails[rail][1]
    columns |= {name: found.columns[name][rows].copy() for name in _NUMBERS}
    names = np.array(QUALITIES, object)
    return columns | {"quality": names[found.quality[rows]], "flags": _flags(found, rows)}


def _flags(found: Attribution, rows: slice) -> list[list[str]]:
    names = [name for name in FLAGS if name in found.flags]
    bits = np.column_stack([found.flags[name][rows] for name in names]) if names else np.zeros((0, 0), bool)
    codes = bits @ (1 << np.arange(len(names)))
    words = {int(code): [name for k, name in enumerate(names) if code >> k & 1] for code in np.unique(codes)}
    return [words[int(code)] for code in codes]


def _mean_w(columns: Columns) -> Array:
    """Power while charged, where enough is covered."""
    with np.errstate(divide="ignore", invalid="ignore"):
        power = columns["joules"] / columns["seconds"]
    return np.where((columns["coverage"] >= ENOUGH) & (columns["seconds"] > 0), power, np.nan)


def _padded(name: str, values: Any, more: int) -> Any:
    """Values of the timed tokens, and unknown for those that could not be placed."""
    if isinstance(values, np.ndarray):
        fill: Any = "missing" if name == "quality" else 0.0 if name == "coverage" else np.nan
        return np.concatenate([values, np.full(more, fill, values.dtype)])
    last = [[]] if name == "flags" else values[:1] or [None]
    return [*values, *(last * more)]


def _tokens_of(request: Request, log: Log) -> Columns:
    tokens = request.tokens
    assert tokens is not None
    step, index, last = tokens.each()
    event = tokens.event[step]
    rows = log.rows.take(pa.array(tokens.event))
    said = np.maximum(log.ints("count")[tokens.event], 1)
    shown = np.asarray(rows["visible"].fill_null(True).to_numpy(zero_copy_only=False), bool)
    text = rows["text"].to_pylist()
    arrival = log.ints("arrival_ns")[event]
    none = np.full(len(step), np.nan)
    columns: Columns = {
        "request": np.full(len(step), request.number), "index": index, "step": step, "start_ns": tokens.start[step],
        "stop_ns": tokens.stop[step], "count": tokens.count[step],
        "visible": shown[step] & (tokens.last[step] - index < said[step]),
        "context": none if request.prompt is None else (index + request.prompt).astype(float),
        "arrival_ns": np.where(arrival >= 0, (arrival - log.start_ns).astype(float), np.nan),
        "text": [text[s] if at_end else None for s, at_end in zip(step, last, strict=True)],
    }  # fmt: skip
    for name in ("drafted", "accepted"):
        told = log.ints(name)[event]
        columns[name] = np.where(last & (told >= 0), told.astype(float), np.nan)
    return columns


def _request_row(run: str, device: Device, request: Request) -> Columns:
    told = {
        "run": run, "request": request.number, "source": request.source, "name": request.name, "error": request.error,
        "model": _text(request.detail.get("model")), "finish": _text(request.detail.get("finish")),
        "sent_ns": request.sent, "partial": request.partial, "warmup": request.warmup, "prompt_tokens": request.prompt,
        "cached_tokens": request.cached, "processed_tokens": request.processed,
    }  # fmt: skip
    return told | _token_facts(request) | _rates(device, request) | _request_energy(device, request)


def _token_facts(request: Request) -> Columns:
    tokens = request.tokens
    if tokens is None:
        counted = (request.detail.get("usage") or {}).get("completion_tokens")
        return {"output_tokens": counted} if isinstance(counted, int) else {}
    told: Columns = {"output_tokens": tokens.total, "times": "device" if tokens.device_times else "arrival"}
    if request.sent is not None and request.first_arrival is not None:
        told["ttft_s"] = (request.first_arrival - request.sent) * NS
    if tokens.placed:
        told["first_token_ns"] = int(tokens.stop[0])
        steps, count = np.diff(tokens.stop) * NS, tokens.count[1:]
        if len(steps):
            each = np.repeat(steps / count, count)
            told["itl_p50_s"], told["itl_p95_s"] = (float(np.quantile(each, q)) for q in (0.5, 0.95))
    return told


def _rates(device: Device, request: Request) -> Columns:
    told = {}
    for phase in device.phases[: device.listed]:
        if phase.request == request.number and phase.phase in ("prefill", "decode") and phase.tokens:
            told[f"{phase.phase}_tokens_per_s"] = phase.tokens / ((phase.stop - phase.start) * NS)
    return told


def _request_energy(device: Device, request: Request) -> Columns:
    mine = [k for k, p in enumerate(device.phases) if p.request == request.number]
    told: Columns = _place(device, device.account) | {"quality": "missing", "flags": [], "coverage": 0.0}
    if not mine:
        return told
    *parts, whole = mine  # the request itself comes after all phases
    told |= {"start_ns": device.phases[whole].start, "stop_ns": device.phases[whole].stop}
    if device.account is None:
        return told
    found = device.rails[device.account][1]
    sums = {name: _sum(found.columns[name][parts]) for name in _SUMMED}
    for name in ("joules_lo", "joules_hi"):  # a part without a bound leaves the whole without one
        if np.isnan(found.columns[name][parts][np.isfinite(found.columns["joules"][parts])]).any():
            sums[name] = None
    told |= sums | {name: _known(found.columns[name][whole]) for name in ("window_joules", "coverage")}
    told["quality"] = _worst(found.quality[parts])
    told["flags"] = [f for f in FLAGS if f in found.flags and found.flags[f][parts].any()]
    if sums["joules"] is not None:
        joules, seconds, per_clock, variance = (
            np.array([sums[n] or 0.0]) for n in ("joules", "seconds", "joules_per_clock", "joules_var")
        )
        number = np.array([request.number])
        told["joules_u"] = float(alone(found.factors, joules, seconds, per_clock, variance, number)[0])
    return told


def _worst(quality: Array) -> str:
    """The worst of the parts; where one was not measured and others were, partial at best."""
    missing = quality == QUALITIES.index("missing")
    if missing.all():
        return "missing"
    least = QUALITIES.index("partial") if missing.any() else 0
    return QUALITIES[max(int(np.max(quality[~missing])), least)]


def _sum(values: Array) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.sum(known)) if len(known) else None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)

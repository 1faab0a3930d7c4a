"""A run's raw streams -> its derived tables. Whatever is damaged or missing, all of them come out, and say so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.account import Candidate, choose
from melt_stream.analysis.clocks import Maps, fit, said
from melt_stream.analysis.energy import Attribution, attribute
from melt_stream.analysis.integrate import RailData, silent
from melt_stream.analysis.meter import Meter
from melt_stream.analysis.phases import Phase, Rows, Timeline, clip, of_name, of_request, rows_of, timeline
from melt_stream.analysis.requests import Request, named, needed, read, requests, starts
from melt_stream.analysis.schemas import SCHEMAS, build
from melt_stream.analysis.tables import oracle_rows, phase_rows, rail_rows, request_rows, token_rows
from melt_stream.analysis.together import together
from melt_stream.analysis.uncertainty import Row, factor

Array = np.ndarray[Any, Any]


@dataclass
class Device:
    """All that is known of one device's run."""

    name: str
    requests: list[Request]
    """Its own: it answered them."""
    phases: list[Phase]
    """Idle included; after them, one ``request`` a request that has any."""
    listed: int
    """How many of ``phases`` are rows of the table."""
    timeline: Timeline
    rows: Rows
    timed: list[Request]
    """Requests whose tokens are rows, after the phases."""
    rails: list[tuple[Meter, Attribution, float]] = field(default_factory=list)
    """Each with its idle power's uncertainty in W; NaN where none was measured."""
    account: int | None = None
    """Index into ``rails``."""


def derive(
    run: str,
    start_ns: int,
    stop_ns: int,
    *,
    readings: pa.Table,
    events: Sequence[pa.Table],
    gaps: pa.Table,
    rails: Sequence[RailData],
    oracles: Sequence[pa.Table] = (),
    account: Mapping[str, str] | None = None,
    markers: pa.Table | None = None,
    involved: Mapping[str, Collection[str]] | None = None,
) -> dict[str, pa.Table]:
    """Return every derived table of a run from ``start_ns`` to ``stop_ns`` (host ns).

    ``events`` and ``oracles`` are raw streams with their schemas' metadata; ``account`` names a device's total as
    ``sensor/rail``; ``markers`` is their table, and what they say of clocks is among the ``readings``; ``involved`` says
    by source of requests which other devices have a part in them. Raises
    ``ConfigError`` where that rail does not exist and ``DataError`` where a rail's columns hold neither power nor energy;
    nothing else that a recording may lack stops it.
    """
    epochs = [(rail.clock, epoch) for rail in rails for epoch, _ in rail.epochs()]
    maps = fit(_with_starts(readings, events), [*epochs, *needed(events)])
    log = read(events, maps, start_ns)
    asked, spans = requests(log), named(log, stop_ns - start_ns)
    meters = [Meter.of(rail, gaps, maps, start_ns) for rail in rails]
    for request in asked:
        request.involves = frozenset((involved or {}).get(request.source, ())) - {request.device}
    names = {r.device for r in asked} | {s.device for s in spans if s.device} | {_device(m) for m in meters}
    names = names.union(*(r.involves for r in asked))
    if spans and not names:
        names = {"host"}
    devices = [
        _measure(
            name, asked, [of_name(s) for s in spans if s.device in (None, name)], meters, stop_ns - start_ns
        )
        for name in sorted(names)
    ]
    for device in devices:
        device.account = _account(device, account or {}, stop_ns - start_ns)
    request_table = request_rows(run, devices)
    phase_table, factors = _joined("phases", [phase_rows(run, d) for d in devices]), _factors(run, devices)
    return {
        "clocks": maps.table(run, start_ns, stop_ns),
        "requests": request_table,
        "phases": phase_table,
        "together": together(phase_table, factors),
        "phase_rails": _joined("phase_rails", [rail_rows(run, d) for d in devices]),
        "tokens": _joined("tokens", [token_rows(run, d, log) for d in devices]),
        "factors": factors,
        "gaps": _gap_rows(run, start_ns, maps, gaps, rails),
        "markers": markers if markers is not None else SCHEMAS["markers"].empty_table(),
        "oracles": oracle_rows(run, oracles, request_table),
    }


def _measure(
    name: str, asked: Sequence[Request], spans: list[Phase], meters: Sequence[Meter], stop: int
) -> Device:
    mine = [r for r in asked if r.device == name]
    groups = [clip(of_request(r, stop), stop) for r in mine]
    others = [p for r in asked if name in r.involves for p in clip(of_request(r, stop), stop)]
    phases = sorted(
        [*clip(spans, stop), *(p for g in groups for p in g), *others], key=lambda p: (p.start, p.stop)
    )
    timed = [r for r in mine if r.tokens is not None and r.tokens.placed and not r.warmup]
    inner = [r.tokens.stop for r in timed if r.tokens is not None]
    cut = timeline(phases, np.concatenate([np.zeros(0, np.int64), *inner]), stop)
    phases = sorted([*phases, *cut.idle(name)], key=lambda p: (p.start, p.stop))
    whole = [_whole(r, g) for r, g in zip(mine, groups, strict=True) if g]
    rows = rows_of(cut, [*phases, *whole], timed)
    device = Device(name, mine, [*phases, *whole], len(phases), cut, rows, timed)
    for meter in meters:
        if _device(meter) == name:
            found = attribute(meter, cut, rows)
            idle = _idle(device, found)
            found.net(idle)
            device.rails.append((meter, found, idle[1] if idle else np.nan))
    return device


def _whole(request: Request, phases: Sequence[Phase]) -> Phase:
    """The request from its first phase to its last: what ``window_joules`` and ``coverage`` are of."""
    start, stop = min(phases, key=lambda p: p.start), max(phases, key=lambda p: p.stop)
    return Phase(
        start.start, stop.stop, start.start_key, stop.stop_key, "request", request.name, request.number, None,
        request.partial, request.device,
    )  # fmt: skip


def _idle(device: Device, found: Attribution) -> tuple[float, float] | None:
    """Idle power and its standard uncertainty, from the baselines: the mean of their powers.

    u^2 = (largest - smallest)^2 / 12, since idle power was anywhere between them, plus the variance of the mean.
    """
    joules, seconds, variance = (found.columns[c] for c in ("joules", "seconds", "joules_var"))
    rows = [
        k
        for k, p in enumerate(device.phases)
        if p.phase == "baseline" and seconds[k] > 0 and np.isfinite(joules[k])
    ]
    if not rows:
        return None
    power = joules[rows] / seconds[rows]
    noise = float(np.sum(variance[rows] / seconds[rows] ** 2)) / len(rows) ** 2
    return float(np.mean(power)), float(np.sqrt((np.max(power) - np.min(power)) ** 2 / 12 + noise))


def _account(device: Device, wanted: Mapping[str, str], stop: int) -> int | None:
    """Choose the device's total."""
    candidates = [_candidate(meter, device.timeline, stop) for meter, _, _ in device.rails]
    chosen = choose(device.name, candidates, wanted)
    return None if chosen is None else candidates.index(chosen)


def _candidate(meter: Meter, cut: Timeline, stop: int) -> Candidate:
    facts = meter.rail.facts
    covered = float(np.sum(meter.elementary(cut.edges[[0, -1]]).seconds)) if stop > 0 else 0.0
    return Candidate(
        str(facts.get("sensor_of")), str(facts.get("name")), str(facts.get("boundary")), str(facts.get("kind")),
        str(facts.get("instrument") or ""), bool(facts.get("estimated")), covered / (stop * 1e-9) if stop > 0 else 0.0,
    )  # fmt: skip


def _device(meter: Meter) -> str:
    return str(meter.rail.facts.get("device_of") or "host")


def _with_starts(readings: pa.Table, events: Sequence[pa.Table]) -> pa.Table:
    """Add what events say of clocks that have readings: a server's slot starts after its request was sent."""
    causes = starts(events)
    if causes is None:
        return readings
    clocks = {
        row["clock_of"]: row
        for row in readings.select(["clock_of", "tick_ns", "rho_ppm", "same_rate"]).to_pylist()
    }
    read_of = set(zip(readings["clock_of"].to_pylist(), readings["epoch_of"].to_pylist(), strict=True))
    rows = [
        {**row, **clocks[row["clock_of"]]}
        for row in causes.to_pylist()
        if (row["clock_of"], row["epoch_of"]) in read_of
    ]
    return pa.concat_tables([readings, pa.Table.from_pylist(rows, readings.schema)]) if rows else readings


def _factors(run: str, devices: Sequence[Device]) -> pa.Table:
    found: list[Row] = []
    for device in devices:
        for meter, attribution, idle_u in device.rails:
            found += attribution.factors
            if np.isfinite(idle_u):
                told = factor(
                    f"baseline {meter.rail.label}", "offset", idle_u, "W", applies="net_joules",
                    source="idle power before and after", shared_with="all net joules of the rail in this run",
                )  # fmt: skip
                found.append(told | {k: attribution.factors[0][k] for k in ("device", "sensor", "rail")})
    of_run = (
        "clock ",
        "baseline ",
        "sampling ",
        "rate ",
    )  # the next run has its own; an instrument's gain stays
    for told in found:
        told["run"] = run
        if run and told["factor"].startswith(of_run):
            told["factor"] = f"{told['factor']} in {run}"
    return build("factors", {f.name: [t.get(f.name) for t in found] for f in SCHEMAS["factors"]}, len(found))


def _gap_rows(run: str, start_ns: int, maps: Maps, gaps: pa.Table, rails: Sequence[RailData]) -> pa.Table:
    found: list[Row] = []
    for row in gaps.to_pylist():
        ends = [
            _time(maps, row["clock_of"], row["epoch_of"], row[end], start_ns) for end in ("start", "stop")
        ]
        found.append({
            "instance": row["instance_of"], "stream": row["stream"], "start_ns": ends[0], "stop_ns": ends[1],
            "lost_rows": row["lost_rows"], "reason": row["reason"],
        })  # fmt: skip
    declared = list(found)
    for rail in rails:
        instance, _, stream = str(rail.facts.get("sensor_of")).partition(".")
        for epoch, before, after, periods in silent(rail):
            ends = [_time(maps, rail.clock, epoch, tick, start_ns) for tick in (before, after)]
            if not any(_overlap(d, instance, stream, ends) for d in declared):
                found.append({
                    "instance": instance, "stream": f"{stream}/{rail.facts.get('name')}", "start_ns": ends[0],
                    "stop_ns": ends[1], "lost_rows": None, "reason": f"silent: {periods:.1f} periods without a sample",
                })  # fmt: skip
    found += _steps(start_ns, maps, rails)
    names = [f.name for f in SCHEMAS["gaps"]]
    return build("gaps", {n: [run if n == "run" else g[n] for g in found] for n in names}, len(found))


def _steps(start_ns: int, maps: Maps, rails: Sequence[RailData]) -> list[Row]:
    """Where a clock that power was measured on was set, or strayed: times in between are known no better."""
    clocks = {rail.clock: str(rail.facts.get("sensor_of")).partition(".") for rail in rails}
    return [
        {
            "instance": instance, "stream": stream, "start_ns": step.host_before - start_ns,
            "stop_ns": step.host_after - start_ns, "lost_rows": None, "reason": said(step),
        }
        for step in maps.steps()
        for instance, _, stream in [clocks.get(step.clock, step.clock.partition("."))]
    ]  # fmt: skip


def _time(maps: Maps, clock: str | None, epoch: int | None, tick: int | None, start_ns: int) -> int | None:
    if tick is None:
        return None
    host = maps.to_host(clock or "host", epoch or 0, np.array([tick], np.int64))
    return None if host is None else int(host[0]) - start_ns


def _overlap(declared: Row, instance: str, stream: str, ends: Sequence[int | None]) -> bool:
    if (declared["instance"], declared["stream"]) != (instance, stream):
        return False
    a, b, c, d = declared["start_ns"], declared["stop_ns"], *ends
    return a is None or b is None or c is None or d is None or (a <= d and b >= c)


def _joined(name: str, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else SCHEMAS[name].empty_table()

"""Imports an MLPerf inference result with power: PTDaemon's watts, loadgen's windows, the two hosts' exchanges.

    power/client.json, server.json    exchanges stamped by both sides: readings of the server's clock
    power/client.log, ptd_logs.txt    zones, and PTDaemon's own averages
    ranging/, run_1/, run_2/ ...      spl.txt (samples of the meter), mlperf_log_detail.txt (power_begin, power_end)

The run's host clock is the client's (the system under test), in ns since its first exchange; the samples are on the
server's. See docs/importers.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._files import optional_lines
from melt_stream.collectors._oracles import ORACLES, oracle
from melt_stream.collectors._power_runs import (
    PowerRun,
    find_zones,
    official_mean,
    origin,
    read_run,
    run_folders,
)
from melt_stream.collectors._power_session import Side, epoch_at, log_zone, read_side, server_readings
from melt_stream.collectors._ptdaemon import VALUES, averages
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet, Row
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import ONE, A, V, W

SERVER = Clock("server", rho_ppm=500.0)
"""The meter's host, ns on the same origin as the client's; both are steered by NTP."""
LOADGEN = Clock("loadgen")
"""ns since loadgen's start; its epoch counts the runs."""
ENTRIES = Stream("loadgen", clock=LOADGEN, key=str, value=str)
TOLERANCE_NS = 800_000_000
"""How far MLCommons' checker lets the two hosts differ; the bound where no exchanges were kept."""
_BLOCK = 1 << 16
_FACTS = ("sut_name", "effective_scenario", "effective_test_mode", "result_validity", "generated_query_count")


_EXAMPLE_SPL = (
    "Time,03-17-2021 20:18:2{second}.500,Watts,{watts}.0,Volts,120.0,Amps,0.2,PF,0.4,Mark,testing\n"
)
_EXAMPLE_DETAIL = """\
:::MLLOG {"key": "power_begin", "value": "03-17-2021 20:18:22.000", "time_ms": 3001.5}
:::MLLOG {"key": "power_end", "value": "03-17-2021 20:18:25.000", "time_ms": 3001.6}
"""


@dataclass
class MlperfPower:
    """Imports one result and ends.

    Raises ``ConfigError`` where ``path`` holds no result with power or several, ``DataError`` with the position where
    a file is damaged.
    """

    path: Path
    """The folder with ``power/`` and ``run_1/``, one above it, or one run."""
    reported_w: float | None = None
    """The mean power published for ``run_1``, to stand beside ours: no file of the folder has it."""
    start_utc_ns: int | None = field(default=None, init=False)
    """When the recording began, once it is known: ns since 1970, UTC."""

    async def collect(self, out: Outlet) -> None:
        folders = run_folders(Path(self.path))
        power = folders[0].parent / "power"
        client, server = read_side(power / "client.json"), read_side(power / "server.json")
        runs = []
        for folder in folders:
            await out.room()
            runs.append(read_run(folder))
        find_zones(runs, client, server, log_zone(optional_lines(power / "client.log"), client))
        runs.sort(key=lambda run: int(run.samples.local[0]) if len(run.samples.local) else 0)
        base = origin(client, runs)
        self.start_utc_ns = base if client.exchanges else None
        readings = _readings(out, client, server, runs, base)
        stream = _stream(server, runs)
        out.rail(stream, _rail(server, stream))
        last: tuple[int, int] | None = None
        for run in runs:
            last = await _samples(out, stream, run, base, readings, last)
        own = averages(optional_lines(power / "ptd_logs.txt"))
        happened = _marks(client, base)
        for epoch, run in enumerate(runs):
            await out.room()
            request = out.next_request() if run.window else None
            happened += _window(run, request, base)
            _entries(out, run, epoch, base)
            _oracles(out, run, request, self.reported_w if run.name == "run_1" else None, own)
        for event in sorted(happened, key=lambda event: int(event["tick"])):
            out.row(EVENTS, **event)
        for name, value in (("session", server.session or client.session), ("meter", server.meter)):
            out.fact(name, value or None)
        out.ready()

    @staticmethod
    def example() -> dict[str, Any]:
        """A run of three seconds, without the session's files."""
        spl = "".join(_EXAMPLE_SPL.format(second=second, watts=9 + second) for second in range(1, 6))
        tree = {"run_1/spl.txt": spl, "run_1/mlperf_log_detail.txt": _EXAMPLE_DETAIL}
        return {"kind": "files", "tree": tree}


def _window(run: PowerRun, request: int | None, base: int) -> list[Row]:
    """The run as a request: the window in which power counts."""
    about = {key: run.loadgen.value(key) for key in _FACTS}
    detail = json.dumps({key: value for key, value in about.items() if value is not None})
    label = {"request": request, "name": run.name, "detail": detail}
    ticks = [local - run.client_zone - base for local in run.window or ()]
    return [
        {"tick": tick, "kind": kind} | label
        for tick, kind in zip(ticks, ("window_start", "window_end"), strict=False)
    ]


def _oracles(
    out: Outlet, run: PowerRun, request: int | None, reported: float | None, own: dict[str, tuple[float, int]]
) -> None:
    """MLPerf's figure for the window, and PTDaemon's for each of its recordings."""
    if run.window:
        mean = official_mean(run.samples, *run.window, run.client_zone - run.server_zone)
        out.row(ORACLES, **oracle(request, "mean_w", "W", reported, mean))
    for mark in sorted(set(run.samples.marks) & own.keys()):
        watts = run.samples.values["watts"][np.array(run.samples.marks) == mark]
        valid = watts[np.isfinite(watts)]
        mean, count = own[mark]
        complete = 0 < len(valid) == count  # some files lack the last samples that PTDaemon counted
        recomputed = float(valid.mean()) if complete else None
        out.row(ORACLES, **oracle(request, "recording_mean_w", "W", mean, recomputed))


def _readings(out: Outlet, client: Side, server: Side, runs: list[PowerRun], base: int) -> list[Reading]:
    readings = server_readings(SERVER, client, server, base)
    if not readings:  # what the checker would have accepted
        ends = [(run, k) for run in runs if len(run.samples.local) for k in (0, -1)]
        stamps = [int(run.samples.local[k]) - run.server_zone - base for run, k in ends]
        readings = [Reading(SERVER, t, 1, t - TOLERANCE_NS, t + TOLERANCE_NS) for t in stamps]
        agree = f"the hosts are taken to agree within {TOLERANCE_NS / 1e9} s, as the checker does"
        out.fact("clocks", f"no exchanges kept: {agree}")
    for reading in readings:
        out.clock_reading(reading)
    return readings


def _stream(server: Side, runs: list[PowerRun]) -> Stream:
    period = 1e6 * server.period_ms if server.period_ms else _median_period(runs)
    return Stream(
        "power", clock=SERVER, period_ns=period, watts=W, volts_rms=V, amps_rms=A, power_factor=ONE, mark=str
    )  # fmt: skip


def _median_period(runs: list[PowerRun]) -> float:
    steps = np.concatenate([np.diff(run.samples.local) for run in runs])
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1e9
    return max(round(usual / 1e7), 1) * 1e7


def _rail(server: Side, stream: Stream) -> Rail:
    name = server.meter.split(",")[0] or "unnamed meter"
    return Rail(
        "dc" if server.dc else "wall",
        "dc_in" if server.dc else "wall",
        "mean",
        window_ns=stream.period_ns,
        anchor="end",
        instrument="meter",
        source=f"{name} through PTDaemon; accuracy not stated in the recording",
    )


async def _samples(
    out: Outlet,
    stream: Stream,
    run: PowerRun,
    base: int,
    readings: list[Reading],
    last: tuple[int, int] | None,
) -> tuple[int, int] | None:
    """Write a run's samples; ``last`` and the result are (epoch, tick) of the last one written."""
    ticks = run.samples.local - run.server_zone - base
    if not len(ticks):
        return last
    epoch = epoch_at(readings, int(ticks[0]))
    least = last[1] if last is not None and last[0] == epoch else int(ticks[0])
    keep = ticks >= np.maximum(np.maximum.accumulate(ticks), least)
    if not keep.all():
        back = ticks[~keep]
        reason = "stamped before an earlier sample: the server's clock was set back, or the files overlap"
        out.gap(stream, int(back.min()), int(back.max()), reason, lost=len(back), epoch=epoch)
    marks = np.array(run.samples.marks, object)
    for start in range(0, len(ticks), _BLOCK):
        part = np.flatnonzero(keep[start : start + _BLOCK]) + start
        values = {name: run.samples.values[name][part] for name in VALUES}
        await out.room()
        _rows(out, stream, ticks[part], epoch, values, marks[part])
    return (epoch, int(ticks[keep].max())) if keep.any() else last


def _rows(out: Outlet, stream: Stream, ticks: Any, epoch: int, values: dict[str, Any], marks: Any) -> None:
    columns = {name: pa.array(column, mask=np.isnan(column)) for name, column in values.items()}
    out.rows(
        stream, tick=ticks, epoch=epoch, watts=columns["watts"], volts_rms=columns["volts"],
        amps_rms=columns["amps"], power_factor=columns["pf"], mark=list(marks),
    )  # fmt: skip
    assert stream.period_ns is not None
    for k in np.flatnonzero(np.isnan(values["watts"])):
        start, stop = int(ticks[k]) - round(stream.period_ns), int(ticks[k])
        out.gap(stream, start, stop, "the meter called its reading invalid", lost=1, epoch=epoch)


def _entries(out: Outlet, run: PowerRun, epoch: int, base: int) -> None:
    entries = sorted(run.loadgen.entries)
    ticks = np.array([entry.ns for entry in entries], np.int64)
    out.rows(ENTRIES, tick=ticks, epoch=epoch, key=[e.key for e in entries], value=[e.value for e in entries])
    if entries and run.window:
        begin, end = (local - run.client_zone - base for local in run.window)
        for reading in run.loadgen.readings(LOADGEN, epoch, begin, end):
            out.clock_reading(reading)


def _marks(client: Side, base: int) -> list[Row]:
    labels = ("session asked for", "work started", "work ended", "session ended")
    return [
        {"tick": stamp - base, "kind": "mark", "name": f"{mode}: {label}"}
        for mode, stamps in client.phases.items()
        for label, stamp in zip(labels, stamps, strict=False)
    ]

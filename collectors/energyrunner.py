"""Imports a session folder of EEMBC EnergyRunner: hardware energy trace, hardware windows, host log, official results.

    NAME-energy.bin        0xF1, float32 sample rate, then float32 microjoules a sample (little endian)
    NAME-timestamps.json   seconds since the trace's start of each edge on a GPIO; window w lies between edges w-1 and w
    log.txt                host seconds, who spoke, what: the run's host clock, counted from its first line
    results.txt            official energy, power, energy per inference of each window

Performance and accuracy sessions have no trace: their windows come from the device's own ``m-lap-us`` timer, and
nothing is measured. See docs/importers.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._energyrunner import (
    HEADER_BYTES,
    LogLine,
    OfficialRule,
    WindowResult,
    edges_ns,
    log_lines,
    trace_rate,
    window_results,
)
from melt_stream.collectors._energyrunner_log import LogSummary, lap_readings, trace_readings
from melt_stream.collectors._files import folders_below, numbered_lines, open_regular, read_json
from melt_stream.collectors._oracles import ORACLES, oracle
from melt_stream.errors import ConfigError, DataError
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import Unit

TRACE = Clock("trace")
"""The instrument's: ns since the trace's first sample; its epoch counts the session's traces."""
DUT = Clock("dut", tick_ns=1000.0)
"""The timer of the device under test, us; read from the log where there is no trace."""
LOG = Stream("log", source=str, text=str)
TRACE_LIMIT = 8 << 30
"""Bytes: a day at 20 kHz."""
_SUFFIX = "-energy.bin"
_BLOCK = 1 << 18
_LINES = 4096
_UNITS = {"joules": "J", "mean_w": "W", "joules_per_inference": "J", "seconds": "s", "inferences_per_s": "/s"}


class Edge(NamedTuple):
    """A time stamp of a window's edge on its clock."""

    epoch: int
    tick: int


@dataclass
class EnergyRunner:
    """Imports one EnergyRunner session and ends.

    Raises ``ConfigError`` where ``path`` holds no session or several, ``DataError`` with the position where a file
    is damaged or the files belong to different runs.
    """

    path: Path
    """The session's folder, one of its traces, or a folder with one session below it."""

    async def collect(self, out: Outlet) -> None:
        folder = session_folder(Path(self.path))
        log = await _log(out, folder / "log.txt")
        results = window_results(_lines(folder / "results.txt"), folder / "results.txt")
        traces = _traces(folder)
        if len(traces) > 1 and not log.traces:
            raise DataError(
                f"{folder}: expected a log.txt that says when each of {len(traces)} traces began, got none"
            )
        for epoch, trace in enumerate(traces):
            await _import_trace(out, trace, epoch, log, results if epoch == 0 else {})
        if not traces:
            _import_laps(out, folder, log, results)
        for name, value in log.facts.items():
            out.fact(name, value)
        out.ready()


def session_folder(path: Path) -> Path:
    """Return the folder of the one session at or below ``path``; a trace stands for its folder.

    Sessions with a trace win over those without, and ``performance`` over ``accuracy``.
    """
    if path.name.endswith(_SUFFIX) and path.is_file():
        return path.parent
    folders = list(folders_below(path, 5))
    found = [folder for folder in folders if _traces(folder)]
    if not found:
        found = [
            folder
            for folder in folders
            if (folder / "results.txt").is_file() or (folder / "log.txt").is_file()
        ]
        found = [folder for folder in found if folder.name == "performance"] or found
    if path in found:
        return path
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(folder.relative_to(path)) for folder in found[:5])
    raise ConfigError(
        f"{path}: expected one EnergyRunner session ('*{_SUFFIX}', log.txt, results.txt), "
        + (f"got {len(found)}: {names}; name one of them" if found else "got none; name the session's folder")
    )


def _traces(folder: Path) -> list[Path]:
    """The folder's traces: trace2 before trace10."""
    found = folder.glob(f"*{_SUFFIX}")
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return numbered_lines(path) if path.exists() else iter(())


async def _log(out: Outlet, path: Path) -> LogSummary:
    """Copy the log into its stream; return what it says of times. An absent log says nothing."""
    summary, block = LogSummary(), []
    for line in log_lines(_lines(path), path):
        summary.see(line)
        block.append(line)
        if len(block) == _LINES:
            await _flush(out, block)
    await _flush(out, block)
    return summary


async def _flush(out: Outlet, block: list[LogLine]) -> None:
    await out.room()
    ticks = np.array([line.ns for line in block], np.int64)
    out.rows(LOG, tick=ticks, source=[line.source for line in block], text=[line.text for line in block])
    block.clear()


async def _import_trace(
    out: Outlet, path: Path, epoch: int, log: LogSummary, results: dict[int, WindowResult]
) -> None:
    name = path.name.removesuffix(_SUFFIX)
    stamps = path.with_name(f"{name}-timestamps.json")
    edges = edges_ns(read_json(stamps), stamps) if stamps.exists() else []
    windows = _windows(len(edges), results)
    with open_regular(path, TRACE_LIMIT) as file:
        rate = trace_rate(file.read(HEADER_BYTES), path)
        stream = Stream("trace", clock=TRACE, period_ns=1e9 / rate, energy=Column(Unit("uJ"), pa.float32()))
        out.rail(stream, _rail(log.instruments.get(name, "")))
        rule = OfficialRule([(edges[w - 1], edges[w]) for w in windows], rate)
        offset, k = HEADER_BYTES, 0
        while block := file.read(4 * _BLOCK):
            if len(block) % 4:
                raise DataError(
                    f"{path}, byte {offset + len(block) // 4 * 4}: expected whole float32 samples, "
                    f"got {len(block) % 4} bytes; was the file copied whole?"
                )
            samples = np.frombuffer(block, "<f4")
            rule.feed(samples.astype(np.float64))
            await out.room()
            _emit(out, stream, epoch, k, samples)
            offset, k = offset + len(block), k + len(samples)
    for reading in _readings(log, name, epoch, edges, round(1e9 / rate)):
        out.clock_reading(reading)
    times = log.traces.get(name)
    requests = _emit_windows(
        out,
        events("windows", TRACE),
        placed := [Edge(epoch, edge) for edge in edges],
        windows,
        times.inferences if times else [],
        log.facts.get("config.model"),
    )
    _check(windows, placed, results, path.with_name("results.txt"))
    for position, w in enumerate(windows):
        seconds = (edges[w] - edges[w - 1]) / 1e9
        own = _recomputed(rule, position, rate, results.get(w), seconds)
        _emit_oracles(out, requests[w], own, results.get(w))


def _rail(instrument: str) -> Rail:
    return Rail(
        "supply",
        "dc_in",
        "delta",
        anchor="start",
        instrument="meter",
        source=f"{instrument or 'unnamed energy monitor'} through EnergyRunner; accuracy not stated in the recording",
    )


def _emit(out: Outlet, stream: Stream, epoch: int, first: int, samples: np.ndarray[Any, Any]) -> None:
    assert stream.period_ns is not None
    index = np.arange(first, first + len(samples) + 1)
    ticks = np.rint(index * stream.period_ns).astype(np.int64)
    bad = ~np.isfinite(samples)
    out.rows(stream, tick=ticks[:-1], epoch=epoch, energy=pa.array(samples, mask=bad))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], bad, [False]))))
    for start, stop in edges.reshape(-1, 2):
        out.gap(stream, int(ticks[start]), int(ticks[stop]), "not a number in the trace", lost=0, epoch=epoch)


def _windows(edges: int, results: dict[int, WindowResult]) -> list[int]:
    """The windows' numbers: every pair after the first edge, and others that the results name."""
    pairs = set(range(2, edges, 2))
    return sorted(pairs | {w for w in results if 0 < w < edges})


def _readings(log: LogSummary, name: str, epoch: int, edges: list[int], resolution: int) -> Iterator[Reading]:
    if (times := log.traces.get(name)) is not None:
        yield from trace_readings(TRACE, epoch, times, edges, resolution)
    elif not log.traces:  # no log: the trace's own axis is the run's
        yield Reading(TRACE, 0, 1, 0, 0, epoch, "exact")


def _emit_windows(
    out: Outlet,
    stream: Stream,
    edges: list[Edge],
    windows: list[int],
    inferences: list[int],
    model: str | None,
) -> dict[int, int]:
    """Write the windows as requests; return their numbers. A last edge without its pair starts one without an end."""
    requests: dict[int, int] = {}
    unpaired = [len(edges)] if len(edges) > 1 and len(edges) % 2 == 0 else []
    for w in [*windows, *unpaired]:
        requests[w] = out.next_request()
        pair = w // 2 - 1
        ran = inferences[pair] if w % 2 == 0 and pair < len(inferences) else None
        about = {"window": w, "inferences": ran, "model": model}
        detail = json.dumps({key: value for key, value in about.items() if value is not None})
        label: dict[str, Any] = {"request": requests[w], "name": f"window {w}", "detail": detail}
        for kind, (epoch, tick) in zip(("window_start", "window_end"), edges[w - 1 : w + 1], strict=False):
            out.row(stream, tick=tick, epoch=epoch, kind=kind, **label)
    return requests


def _check(windows: list[int], edges: list[Edge], results: dict[int, WindowResult], path: Path) -> None:
    """Refuse results of another run: an official figure beside the wrong window would mislead."""
    for w, result in results.items():
        if edges and w not in windows:
            raise DataError(
                f"{path}, line {result.line}: expected a window between {len(edges)} edges, got window {w}"
            )
        if edges and result.at_s is not None and abs(result.at_s - edges[w - 1].tick / 1e9) > 0.0101:
            raise DataError(
                f"{path}, line {result.line}: expected window {w} at {edges[w - 1].tick / 1e9:.2f} s as in the time stamps, "
                f"got {result.at_s} s; are these files of one run?"
            )


def _recomputed(
    rule: OfficialRule, position: int, rate: float, result: WindowResult | None, seconds: float
) -> dict[str, float]:
    count = int(rule.counts[position])
    own = {"joules": float(rule.sums[position]) * 1e-6} if count else {}
    if count:
        own["mean_w"] = own["joules"] / (count / rate)
    return own | _per_inference(own.get("joules"), result, seconds)


def _per_inference(joules: float | None, result: WindowResult | None, seconds: float) -> dict[str, float]:
    ran = result.values.get("inferences") if result else None
    own = {"seconds": seconds}
    if ran and seconds:
        own["inferences_per_s"] = ran / seconds
    if ran and joules is not None:
        own["joules_per_inference"] = joules / ran
    return own


def _emit_oracles(
    out: Outlet, request: int | None, own: dict[str, float], result: WindowResult | None
) -> None:
    reported = result.values if result else {}
    for quantity, unit in _UNITS.items():
        if quantity in reported or (quantity in own and quantity in ("joules", "mean_w")):
            out.row(ORACLES, **oracle(request, quantity, unit, reported.get(quantity), own.get(quantity)))


def _import_laps(out: Outlet, folder: Path, log: LogSummary, results: dict[int, WindowResult]) -> None:
    """A session without a trace: the device timed itself."""
    for reading in lap_readings(DUT, log.laps):
        out.clock_reading(reading)
    edges = [Edge(epoch, us) for epoch, us, _ in log.laps]
    windows = _windows(len(edges), results)
    requests = _emit_windows(
        out, events("windows", DUT), edges, windows, log.inferences, log.facts.get("config.model")
    )
    _check(windows, edges, {w: r for w, r in results.items() if r.at_s is None}, folder / "results.txt")
    for w in sorted(results.keys() | set(windows)):
        own = {}
        if w in requests and edges[w].epoch == edges[w - 1].epoch:
            own = _per_inference(None, results.get(w), (edges[w].tick - edges[w - 1].tick) / 1e6)
        _emit_oracles(out, requests.get(w), own, results.get(w))

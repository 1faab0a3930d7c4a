"""Imports a session folder of EEMBC EnergyRunner: hardware energy trace, hardware windows, host log, official results.

    NAME-energy.bin        0xF1, float32 sample rate, then float32 microjoules a sample (little endian)
    NAME-timestamps.json   seconds since the trace's start of each edge on a GPIO; window w lies between edges w-1 and w
    log.txt                host seconds, who spoke, what: the run's host clock, counted from its first line
    results.txt            official energy, power, energy per inference of each window

Performance and accuracy sessions have no trace: their windows come from the device's own ``m-lap-us`` timer, and
nothing is measured. See docs/importers.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from melt_stream.collectors._energyrunner_windows import (
    Edge,
    check_results,
    emit_oracles,
    emit_windows,
    per_inference,
    recomputed,
    window_numbers,
)
from melt_stream.collectors._files import folders_below, open_regular, optional_lines, read_json
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


@dataclass
class EnergyRunner:
    """Imports one EnergyRunner session and ends.

    Raises ``ConfigError`` where ``path`` holds no session or several, ``DataError`` with the position where a file
    is damaged or the files belong to different runs.
    """

    path: Path
    """The session's folder, one of its traces, or a folder with one session below it."""

    @staticmethod
    def example() -> dict[str, Any]:
        log = (
            "177779.927 session: m-session-start-id[20220929110241]\n"
            "177780.441 dut: m-lap-us-95214000\n177780.959 dut: m-lap-us-95732000\n"
            "177796.181 dut: m-lap-us-110953000\n177796.711 dut: m-lap-us-111484000\n"
        )
        results = (
            "177859.181 ulp-mlperf: Performance results for window 2:\n"
            "177859.181 ulp-mlperf:   # Inferences :          200\n"
            "177859.181 ulp-mlperf:   Runtime      :       15.221 sec.\n"
            "177859.181 ulp-mlperf:   Throughput   :       13.140 inf./sec.\n"
        )
        return {"kind": "files", "tree": {"log.txt": log, "results.txt": results}}

    async def collect(self, out: Outlet) -> None:
        folder = session_folder(Path(self.path))
        log = await _log(out, folder / "log.txt")
        results = window_results(optional_lines(folder / "results.txt"), folder / "results.txt")
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


async def _log(out: Outlet, path: Path) -> LogSummary:
    """Copy the log into its stream; return what it says of times. An absent log says nothing."""
    summary, block = LogSummary(), []
    for line in log_lines(optional_lines(path), path):
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
    windows = window_numbers(len(edges), results)
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
    placed = [Edge(epoch, edge) for edge in edges]
    ran = log.traces[name].inferences if name in log.traces else []
    requests = emit_windows(
        out, events("windows", TRACE), placed, windows, ran, log.facts.get("config.model")
    )
    check_results(windows, placed, results, path.with_name("results.txt"))
    for position, w in enumerate(windows):
        seconds = (edges[w] - edges[w - 1]) / 1e9
        own = recomputed(rule, position, rate, results.get(w), seconds)
        emit_oracles(out, requests[w], own, results.get(w))
    for w in sorted(results.keys() - set(windows)):  # no time stamps: nothing says where these windows were
        emit_oracles(out, None, {}, results[w])


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


def _readings(log: LogSummary, name: str, epoch: int, edges: list[int], resolution: int) -> Iterator[Reading]:
    if (times := log.traces.get(name)) is not None:
        yield from trace_readings(TRACE, epoch, times, edges, resolution)
    elif not log.traces:  # no log: the trace's own axis is the run's
        yield Reading(TRACE, 0, 1, 0, 0, epoch, "exact")


def _import_laps(out: Outlet, folder: Path, log: LogSummary, results: dict[int, WindowResult]) -> None:
    """A session without a trace: the device timed itself."""
    for reading in lap_readings(DUT, log.laps):
        out.clock_reading(reading)
    edges = [Edge(epoch, us) for epoch, us, _ in log.laps]
    windows = window_numbers(len(edges), results)
    requests = emit_windows(
        out, events("windows", DUT), edges, windows, log.inferences, log.facts.get("config.model")
    )
    check_results(
        windows, edges, {w: r for w, r in results.items() if r.at_s is None}, folder / "results.txt"
    )
    for w in sorted(results.keys() | set(windows)):
        own = {}
        if w in requests and edges[w].epoch == edges[w - 1].epoch:
            own = per_inference(None, results.get(w), (edges[w].tick - edges[w - 1].tick) / 1e6)
        emit_oracles(out, requests.get(w), own, results.get(w))

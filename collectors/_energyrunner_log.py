"""What the host log of an EnergyRunner session tells of times: when traces began, when edges were caused and seen.

The firmware answers ``infer N W`` by: N and W printed, warm-up, ``m-infer-start``, edge, inferences, edge,
``m-infer-done``. So an inference's first edge comes after the host's command, and its last before the host
reads ``m-infer-done``. The instrument's first sample lies between ``emon trace on`` and its acknowledgement.
(The end of a trace bounds nothing: LPM01A traces run on for up to a second after ``trace off``.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from melt_stream.clock import Clock, Reading, ReadingKind
from melt_stream.collectors._energyrunner import LogLine

STAMP_NS = 1_000_000
"""Resolution of the log's stamps; a bound taken from one is widened by it."""
_COMMAND = re.compile(r'Command "((?:io )?(?:dut )?)(emon trace on|timestamp|infer)(?: ([^\s"]+))?')
_REGISTERED = re.compile(r"m-regfile-fn\[([^\]]*)-energy\.bin\]-type\[emon\]-name\[([^\]]*)\]")
_LAP = re.compile(r"m-lap-us-(\d{1,15})$")
_FACTS = re.compile(r"m-(session-start-id|bmark-run-name|version|model|profile|voltage-mv)-?\[([^\]]*)\]")
_CONFIG = re.compile(r"m-bm-cfg-name\[[^\]]*\]-key\[([^\]]*)\]-val\[([^\]]*)\]")
_INFER = re.compile(r"m-infer-start-(\d{1,9})$")


@dataclass
class TraceTimes:
    """Host times, in ns of the log's axis, between ``trace on`` and ``trace off``."""

    commanded: int
    acknowledged: int | None = None
    first_edge_command: int | None = None
    first_edge_seen: int | None = None
    infer_commands: list[int] = field(default_factory=list)
    infer_done: list[int] = field(default_factory=list)
    inferences: list[int] = field(default_factory=list)
    """How many each command ran."""


@dataclass
class LogSummary:
    """What a log said, gathered line by line with :meth:`see`."""

    traces: dict[str, TraceTimes] = field(default_factory=dict)
    instruments: dict[str, str] = field(default_factory=dict)
    """By trace: the energy monitor's name, such as ``lpm01a``."""
    laps: list[tuple[int, int, int]] = field(default_factory=list)
    """(epoch, microseconds of the timer that saw the edge, host time of the line). The timer starts again from 0
    after 2^32 us, 512 s or 699 s, as the board has it: each time is an epoch."""
    inferences: list[int] = field(default_factory=list)
    """How many each ``infer`` command ran outside of traces."""
    facts: dict[str, str] = field(default_factory=dict)
    _open: TraceTimes | None = None

    def see(self, line: LogLine) -> None:
        """Take the next line."""
        if line.source == "parser" and (command := _COMMAND.match(line.text)):
            self._command(command[2], command[3] or "", line.ns)
        elif found := _LAP.search(line.text):
            epoch, last, _ = self.laps[-1] if self.laps else (0, 0, 0)
            us = int(found[1])
            self.laps.append((epoch + (us < last), us, line.ns))
        elif found := _REGISTERED.search(line.text):
            self.instruments[found[1]] = found[2]
        elif found := _INFER.search(line.text):
            (self._open or self).inferences.append(int(found[1]))
        elif found := _CONFIG.search(line.text):
            self.facts[f"config.{found[1]}"] = found[2]
        elif found := _FACTS.search(line.text):
            self.facts[found[1].replace("-", "_")] = found[2]
        elif self._open is not None:
            self._answer(self._open, line)

    def _command(self, command: str, argument: str, ns: int) -> None:
        if command == "emon trace on":
            self._open = self.traces[argument] = TraceTimes(ns)
        elif self._open is not None and command == "timestamp" and self._open.first_edge_command is None:
            self._open.first_edge_command = ns
        elif self._open is not None and command == "infer":
            self._open.infer_commands.append(ns)

    def _answer(self, trace: TraceTimes, line: LogLine) -> None:
        if "m-trace[on]" in line.text:
            trace.acknowledged = line.ns
        elif "m-trace[off]" in line.text:
            self._open = None
        elif "m-infer-done" in line.text:
            trace.infer_done.append(line.ns)
        elif trace.first_edge_command is not None and trace.first_edge_seen is None and _ready(line):
            trace.first_edge_seen = line.ns


def _ready(line: LogLine) -> bool:
    """Tell whether the device says that it did what it was asked."""
    return line.text == "[dut]: m-ready" or (line.source == "dut" and line.text == "m-ready")


def trace_readings(
    clock: Clock, epoch: int, times: TraceTimes, edges: list[int], resolution: int
) -> Iterator[Reading]:
    """Yield what the log bounds of a trace's clock: its start, its first edge, and each inference's two edges.

    ``edges`` in ns since the trace's start, each known to ``resolution`` ns. Edges of inferences are used only
    where the log has as many answers as there are windows, so that none is taken for another's.
    """

    def reading(
        tick: int, low: int | None, high: int | None, kind: ReadingKind, width: int = resolution
    ) -> Reading:
        return Reading(
            clock,
            tick,
            width,
            None if low is None else low - STAMP_NS,
            None if high is None else high + STAMP_NS,
            epoch,
            kind,
        )

    if times.acknowledged is not None:
        yield reading(0, times.commanded, times.acknowledged, "round_trip", 1)
    if edges and times.first_edge_command is not None:
        seen = times.first_edge_seen
        yield reading(edges[0], times.first_edge_command, seen, "cause" if seen is None else "round_trip")
    windows = (len(edges) - 1) // 2
    if windows > 0 and len(edges) % 2 and windows == len(times.infer_commands) == len(times.infer_done):
        for k in range(windows):
            yield reading(edges[2 * k + 1], times.infer_commands[k], None, "cause")
            yield reading(edges[2 * k + 2], None, times.infer_done[k], "arrival")


def lap_readings(clock: Clock, laps: list[tuple[int, int, int]]) -> Iterator[Reading]:
    """Yield each lap line as an arrival: the timer showed its microseconds before the host read the line."""
    for epoch, tick, ns in laps:
        yield Reading(clock, tick, 1, None, ns + STAMP_NS, epoch, "arrival")

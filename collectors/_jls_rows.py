"""From what a .jls file holds to rows, gaps, events and readings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.clock import HOST, Clock, Reading
from melt_stream.collectors._jls import (
    EPOCH_NS,
    LAST,
    Array,
    Gap,
    Group,
    Holes,
    groups,
    signal,
    utc_map,
)
from melt_stream.collectors._logic import changes
from melt_stream.errors import DataError
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V, W

UNITS = {"amps": A, "volts": V, "watts": W}
MARKS = {0: "user", 1: "text", 2: "vertical marker", 3: "horizontal marker"}


@dataclass
class Filler:
    """From messages to rows."""

    out: Outlet
    path: str
    where: str = "its head"
    start_utc_ns: int | None = None
    _groups: list[Group] = field(default_factory=list)
    _streams: dict[str, Stream] = field(default_factory=dict)
    _holes: dict[str, Holes] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)
    """Sample after the last one, by group."""
    _blocks: dict[int, tuple[int, Array]] = field(default_factory=dict)
    _stretch: tuple[str, int] = ("", 0)
    _levels: dict[int, bool] = field(default_factory=dict)
    _base: int | None = None
    """UTC of the run's second 0."""

    def take(self, message: dict[str, Any], data: bytes) -> None:
        """Take a message, and the bytes that followed it."""
        match message["kind"]:
            case "file":
                self._begin(message)
            case "utc":
                group, one = self._of(message["signal"])
                if group is not None and not group.pairs:
                    group.pairs = utc_map(data, one, self.path)
            case "mark":
                self._place()
                self._mark(message)
            case "note":
                self.out.fact("note", message["text"])
            case "block":
                self._place()
                self._block(message, data)
            case _:
                raise DataError(
                    f"{self.path}, {message['where']}: expected what pyjls can read, got {message['text']}"
                )

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        for group in self._groups:
            if group.name in self._holes:
                self._gaps(group, self._holes[group.name].close(self._ends[group.name]))

    def _begin(self, message: dict[str, Any]) -> None:
        signals = [signal(told, self.path) for told in message["signals"]]
        self._groups, left_out = groups([one for one in signals if one.length])
        if not any(group.columns for group in self._groups):
            there = ", ".join(f"{one.name} ({one.units or one.kind})" for one in signals) or "none"
            raise DataError(f"{self.path}: expected a signal in A, V or W with samples, got {there}")
        self.out.fact("sources", message["sources"])
        self.out.fact("signals left out", [*left_out, *message["left_out"]])
        sources = {told["source_id"]: told for told in message["sources"]}
        for group in self._groups:
            if group.columns:
                self._declare(group, str(sources.get(group.source, {}).get("name") or "main"))

    def _declare(self, group: Group, name: str) -> None:
        columns: dict[str, Any] = {name: Column(UNITS[name], pa.float32()) for name in group.columns}
        stream = Stream(group.name, clock=group.clock, period_ns=1e9 / group.hz, **columns)
        self._streams[group.name], self._holes[group.name] = stream, Holes()
        if "watts" in columns or {"amps", "volts"} <= columns.keys():
            source = "the file says nothing of its instrument's accuracy, nor where that was wired"
            self.out.rail(stream, Rail(name, "dc_in", "gauge", instrument="meter", source=source))

    def _of(self, number: int) -> tuple[Group | None, Any]:
        for group in self._groups:
            for one in group.signals:
                if one.number == number:
                    return group, one
        return None, None

    def _place(self) -> None:
        """Tie all clocks to the run's time line, which is UTC from the first sample on: by definition, since nobody else knows."""
        if self._base is not None:
            return
        starts = [start for group in self._groups if (start := group.start()) is not None]
        self._base = min(starts, default=0)
        if starts and 0 < self._base < LAST:
            self.start_utc_ns = EPOCH_NS + _ns(self._base)
        for group in self._groups:
            ties = [(pair.sample, _ns(pair.time - self._base)) for pair in group.pairs] or [(group.first, 0)]
            for sample, at in ties:
                self.out.clock_reading(
                    Reading(group.clock, sample, not_before=at, not_after=at, kind="exact")
                )

    def _mark(self, message: dict[str, Any]) -> None:
        group, _ = self._of(message["signal"])
        values = {"kind": "mark", "name": MARKS.get(message["type"], "mark"), "text": message["text"]}
        if group is not None:
            stream = self._events(group.name.replace("main", "marks"), group.clock)
            self.out.row(stream, tick=message["at"], **values)
        elif message["signal"] == 0 and self.start_utc_ns is not None and 0 < message["at"] < LAST:
            assert self._base is not None
            self.out.row(self._events("marks_utc", HOST), tick=_ns(message["at"] - self._base), **values)

    def _events(self, name: str, clock: Clock) -> Stream:
        return self._streams.setdefault(name, events(name, clock))

    def _block(self, message: dict[str, Any], data: bytes) -> None:
        group, one = self._of(message["signal"])
        if group is None:
            return
        first, count = message["index"] + one.offset, message["count"]
        self.where = f"signal {one.number} ({one.name}), after sample {message['index'] + count}"
        if one in group.inputs.values():
            self._inputs(group, one, first, data, count)
            return
        if (stretch := (group.name, message["stretch"])) != self._stretch:
            self._flush()
            self._stretch = stretch
        self._blocks[one.number] = first, np.frombuffer(data, "<f4", count)

    def _inputs(self, group: Group, one: Any, first: int, data: bytes, count: int) -> None:
        name = next(name for name, other in group.inputs.items() if other is one)
        stream = self._streams.setdefault(name, Stream(name, clock=group.clock, role="logic", level=bool))
        at, levels = changes(data, count, self._levels.get(one.number))
        self.out.rows(stream, tick=at + first, level=levels)
        if len(levels):
            self._levels[one.number] = bool(levels[-1])

    def _flush(self) -> None:
        for group in self._groups:
            if not any(one.number in self._blocks for one in group.columns.values()):
                continue
            first, columns = group.table(self._blocks)
            missing = np.isnan(np.array(list(columns.values())))
            self._gaps(group, self._holes[group.name].feed(first, missing.any(axis=0)))
            there = ~missing.all(axis=0)
            ticks = np.arange(first, first + len(there))
            values = {
                name: pa.array(column[there], pa.float32(), from_pandas=True)
                for name, column in columns.items()
            }
            self.out.rows(self._streams[group.name], tick=ticks[there], **values)
            self._ends[group.name] = first + len(there)
        self._blocks = {}

    def _gaps(self, group: Group, gaps: Iterator[Gap]) -> None:
        reason = "samples are missing in the file"
        for gap in gaps:
            self.out.gap(self._streams[group.name], gap.start, gap.stop, reason, lost=gap.lost)


def _ns(time: int) -> int:
    """2^-30 s as ns."""
    return (time * 10**9) >> 30

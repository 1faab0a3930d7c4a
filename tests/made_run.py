"""Raw streams of a run, made by hand: what ``derive`` is given, without a recording."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.derive import derive
from melt_stream.analysis.integrate import RailData
from melt_stream.clock import Clock
from melt_stream.events import events
from melt_stream.internal import GAPS, READINGS
from melt_stream.sink import Source

MS = 1_000_000
S = 1_000_000_000
START = 7 * S  # the host's clock when the run starts
SERVER = Clock("server", tick_ns=1000.0, rho_ppm=0.0, same_rate=True)


def rail(
    t_ns: Any, values: Any, kind: str = "gauge", column: str = "watts", unit: str = "W", **facts: Any
) -> RailData:
    """A rail of the device host, its samples at these times of the run (or ticks of ``clock``)."""
    clock, period = facts.pop("clock", "host"), facts.pop("period_ns", None)
    tick_ns, epoch, more = facts.pop("tick_ns", 1.0), facts.pop("epoch", None), facts.pop("more", {})
    told = {
        "device_of": "host", "sensor_of": "meter.power", "name": "main", "boundary": "board", "kind": kind,
        "instrument": "gauge", "source": "data sheet", "gain": None, "offset": None, "noise": None, "estimated": False,
        "anchor": "end", "window_ns": None, "clock_of": clock, "sample_period_ns": period,
    }  # fmt: skip
    tick = np.asarray(t_ns, np.int64) + (START if clock == "host" else 0)
    columns = {column: np.asarray(values)} | {name: np.asarray(v) for name, (v, _) in more.items()}
    units = {column: unit} | {name: u for name, (_, u) in more.items()}
    return RailData(told | facts, clock, tick_ns, period, tick, epoch, None, columns, units)


def constant(watts: float, seconds: float, hz: float = 1000.0, **facts: Any) -> RailData:
    """A gauge that always shows the same."""
    t = np.arange(0, int(seconds * S) + 1, int(S / hz))
    return rail(t, np.full(len(t), watts), **facts)


@dataclass
class Made:
    """A run; times in ms since its start."""

    seconds: float = 10.0
    host: list[dict[str, Any]] = field(default_factory=list)
    server: list[dict[str, Any]] = field(default_factory=list)
    own: list[dict[str, Any]] = field(default_factory=list)
    readings: list[dict[str, Any]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    rails: list[RailData] = field(default_factory=list)
    oracles: list[pa.Table] = field(default_factory=list)
    account: dict[str, str] = field(default_factory=dict)
    device: str = "host"
    involves: list[str] = field(default_factory=list)

    def event(self, kind: str, ms: float, **columns: Any) -> None:
        """Add an event on the host's clock."""
        self.host.append({"tick": START + round(ms * MS), "kind": kind, **columns})

    def phase(self, name: str, start: float, stop: float | None, *, engine: bool = True) -> None:
        """Add a named phase, of the engine or of the collector ``llama``."""
        rows = self.own if engine else self.host
        rows.append({"tick": START + round(start * MS), "kind": "phase_start", "name": name})
        if stop is not None:
            rows.append({"tick": START + round(stop * MS), "kind": "phase_end", "name": name})

    def ask(
        self,
        number: int,
        sent: float,
        ends: list[float],
        end: float | None = None,
        *,
        slot: float | None = None,
        counts: list[int] | None = None,
        detail: dict[str, Any] | None = None,
        delay: float = 3.0,
        **first: Any,
    ) -> None:
        """Add a request. Its steps end at ``ends``: on the server's clock where ``slot`` is given, else on arrival.

        On the server's clock every arrival is seen ``delay`` ms late.
        """
        self.event(
            "request_sent", sent, request=number, name=f"prompt-{number}", detail=json.dumps(detail or {})
        )
        counts = counts or [1] * len(ends)
        index = -1
        if slot is not None:
            self.served("prefill_start", number, sent, slot, slot, delay, **first)
        for t, count in zip(ends, counts, strict=True):
            index += count
            told = {"request": number, "index": index, "count": count, "visible": True}
            if slot is None:
                self.event("token", t, arrival_ns=START + round(t * MS), **told)
            else:
                self.served("token", number, sent, slot, t, delay, **told)
        if end is not None:
            self.event("request_end", end, request=number, detail=json.dumps({"finish": "stop"}))

    def served(
        self, kind: str, number: int, sent: float, slot: float, ms: float, delay: float, **columns: Any
    ) -> None:
        """Add an event on the server's clock, and its reading."""
        tick, arrival = round((ms - slot) * 1000), START + round((ms + delay) * MS)
        self.server.append(
            {"tick": tick, "epoch": number, "kind": kind, "arrival_ns": arrival, "request": number, **columns}
        )
        self.read(
            "llama.server",
            tick,
            START + round(sent * MS),
            arrival,
            number,
            tick_ns=1000.0,
            rho_ppm=0.0,
            same_rate=True,
        )

    def read(
        self,
        clock: str,
        tick: int,
        before: int | None,
        after: int | None,
        epoch: int = 0,
        kind: str = "arrival",
        **facts: Any,
    ) -> None:
        """Add a clock reading (host ns)."""
        told = {"tick_ns": 1.0, "rho_ppm": 15.0, "same_rate": False, "resolution": 1} | facts
        self.readings.append({
            "tick": 0, "clock_of": clock, "epoch_of": epoch, "count": tick, "not_before": before, "not_after": after,
            "kind": kind, **told,
        })  # fmt: skip

    def gap(self, start_ms: float, stop_ms: float, stream: str = "power") -> None:
        """Declare a hole in the stream ``meter.power``."""
        a, b = (START + round(ms * MS) for ms in (start_ms, stop_ms))
        self.gaps.append({
            "tick": b, "instance_of": "meter", "stream": stream, "clock_of": "host", "epoch_of": 0, "start": a,
            "stop": b, "lost_rows": None, "reason": "unreadable",
        })  # fmt: skip

    def tables(self) -> list[pa.Table]:
        """The event streams."""
        return [
            pa.Table.from_pylist(self.own, Source("run", events()).schema),
            pa.Table.from_pylist(self.host, Source("llama", events(), self.device).schema),
            pa.Table.from_pylist(self.server, Source("llama", events("server", SERVER), self.device).schema),
        ]

    def derive(self) -> dict[str, pa.Table]:
        """What the run comes to."""
        return derive(
            "r1", START, START + round(self.seconds * S),
            readings=pa.Table.from_pylist(self.readings, READINGS.schema), events=self.tables(),
            gaps=pa.Table.from_pylist(self.gaps, GAPS.schema), rails=self.rails, oracles=self.oracles,
            account=self.account, involved={"llama": self.involves},
        )  # fmt: skip

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows of a derived table that have these values."""
        return pick(self.derive(), table, **where)


def pick(derived: dict[str, pa.Table], table: str, **where: Any) -> list[dict[str, Any]]:
    """Rows of a derived table that have these values."""
    rows: list[dict[str, Any]] = derived[table].to_pylist()
    return [row for row in rows if all(row[name] == value for name, value in where.items())]

"""What is going on, in one line on stderr while a run records; quiet where stderr is no terminal."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.live import Live
from rich.text import Text

from melt_stream.clock import monotonic
from melt_stream.sink import Batch
from melt_stream.sinks.latest import Thermometer

WINDOW = 20
"""Flushes over which tokens per second are counted: 5 s."""


@dataclass
class Tally:
    """Running figures of a recording, fed with batches; pure but for what it is fed."""

    rows: int = 0
    tokens: int = 0
    gaps: int = 0
    watts: dict[str, float] = field(default_factory=dict)
    """Latest power by sensor."""
    estimated: set[str] = field(default_factory=set)
    thermometer: Thermometer = field(default_factory=Thermometer)
    _counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _joules: dict[str, float] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count one batch."""
        key, data = batch.source.key, batch.data
        self.rows += data.num_rows
        self.thermometer.add(batch)
        if key == "run.gaps":
            self.gaps += data.num_rows
        elif key == "run.rails":
            self._note_rails(data)
        elif batch.source.stream.role == "events":
            self._count_tokens(data)
        elif "watts" in data.schema.names and batch.source.clock == "host":
            self._follow(key, data)

    def passed(self, seconds: float) -> None:
        """Say that so many seconds have passed since the start."""
        self._counts.append((seconds, self.tokens))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second lately; None before there are any."""
        if len(self._counts) < 2 or not self.tokens:
            return None
        (first, before), (last, now) = self._counts[0], self._counts[-1]
        return (now - before) / (last - first) if last > first else None

    @property
    def joules_per_token(self) -> float | None:
        """Joules so far over tokens so far, of the first sensor; a rough figure for the eye."""
        return next(iter(self._joules.values())) / self.tokens if self.tokens and self._joules else None

    def _note_rails(self, data: pa.RecordBatch) -> None:
        estimated = pc.fill_null(data["estimated"], False)
        self.estimated |= set(data["sensor_of"].filter(estimated).to_pylist())

    def _count_tokens(self, data: pa.RecordBatch) -> None:
        tokens = data.filter(pc.equal(data["kind"], "token"))
        self.tokens += pc.sum(tokens["count"]).as_py() or 0

    def _follow(self, key: str, data: pa.RecordBatch) -> None:
        """Follow a sensor by the last row of each flush: a rail's power is held until the next one."""
        watts, tick = data["watts"][-1].as_py(), data["tick"][-1].as_py()
        if watts is None:
            return
        if key in self._last:
            self._joules[key] = self._joules.get(key, 0.0) + watts * (tick - self._last[key]) * 1e-9
        self._last[key], self.watts[key] = tick, watts


class Progress:
    """A sink that shows a :class:`Tally`; the newest figures matter, so it may drop batches when it is slow."""

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.console = Console(file=sys.stderr, highlight=False)

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        """Show figures until the run ends."""
        tally, start = Tally(), monotonic()
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            async for flush in batches:
                for batch in flush:
                    tally.add(batch)
                tally.passed(seconds := (monotonic() - start) * 1e-9)
                live.update(line(tally, seconds, self.title), refresh=True)


def sinks(quiet: bool, title: str = "") -> list[Any]:
    """Return the sinks that show progress: none where nobody would see it."""
    return [] if quiet or not sys.stderr.isatty() else [Progress(title)]


def line(tally: Tally, seconds: float, title: str = "") -> Text:
    """Return the line of figures after ``seconds`` of recording, what is recorded first."""
    parts = [title] if title else []
    parts += [f"{seconds:6.1f} s", f"{tally.rows / max(seconds, 1e-3):,.0f} rows/s"]
    parts += [
        f"{key} {watts:.2f} W{' est.' if key in tally.estimated else ''}"
        for key, watts in tally.watts.items()
    ]
    if tally.tokens:
        parts.append(f"{tally.tokens} tokens")
    if (rate := tally.tokens_per_s) is not None:
        parts.append(f"{rate:.3g} tokens/s")
    if (cost := tally.joules_per_token) is not None:
        parts.append(f"~{cost:.3g} J/token")
    if (celsius := tally.thermometer.hottest()) is not None:
        parts.append(f"{celsius:.0f} °C")
    parts.append(f"{tally.gaps} gaps")
    return Text("  ".join(parts), overflow="ellipsis", no_wrap=True)

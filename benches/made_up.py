"""A run that nobody recorded: a meter's samples, and answers of a language model, on a time axis from 0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import trio

from melt_stream.engine import record
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.run import Run, create
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Stream
from melt_stream.units import A, V, W

BLOCK = 10_000
MS = 1_000_000
PREFILL, STEP, PAUSE = 400 * MS, 30 * MS, 500 * MS
TOKENS = 64
RAIL = Rail("main", boundary="board", kind="gauge", gain=0.005, offset=0.002, noise=0.01, instrument="meter")


@dataclass
class MadeUp:
    """Puts ``samples`` rows, ``period_ns`` apart, and as many answers as fit into that time."""

    samples: int
    period_ns: int = 1 * MS

    async def collect(self, out: Outlet) -> None:
        """Put all as fast as there is room."""
        stream = Stream("power", period_ns=float(self.period_ns), volts=V, amps=A, watts=W)
        out.rail(stream, RAIL)
        rng = np.random.default_rng(1)
        for first in range(0, self.samples, BLOCK):
            index = np.arange(first, min(first + BLOCK, self.samples))
            volts = np.round(12.0 + rng.normal(0.0, 0.01, len(index)), 3)
            amps = np.round(0.5 + 0.1 * np.sin(index / 300) + rng.normal(0.0, 0.02, len(index)), 3)
            out.rows(stream, tick=index * self.period_ns, volts=volts, amps=amps, watts=volts * amps)
            await out.room()
        await self._answers(out)

    async def _answers(self, out: Outlet) -> None:
        at, end = 1_000 * MS, self.samples * self.period_ns
        while at + PREFILL + TOKENS * STEP < end:
            request = out.next_request()
            tell = partial(out.row, EVENTS, request=request)
            tell(tick=at, kind="request_sent", name="made up")
            tell(tick=at + MS, kind="prefill_start", prompt_total=40, prompt_cached=0, prompt_processed=40)
            ends = range(at + PREFILL, at + PREFILL + TOKENS * STEP, STEP)
            for index, done in enumerate(ends):
                tell(
                    tick=done,
                    kind="token",
                    index=index,
                    count=1,
                    visible=True,
                    arrival_ns=done + MS,
                    text="word ",
                )
            tell(tick=ends[-1], kind="request_end", detail='{"finish": "stop"}')
            at = ends[-1] + PAUSE
            await out.room()


def make(archive: Path, samples: int, period_ns: int = 1 * MS) -> Run:
    """Make a finished run of ``samples`` samples, not yet packed."""
    with create(archive, recipe={}, name="made up", imported="benches", now=_zero) as folder:
        ending = trio.run(
            partial(record, {"meter": MadeUp(samples, period_ns)}, [Journal(folder)], now=_zero)
        )
        if ending.error is not None:
            raise ending.error
        folder.finish(ending.reason)
    return Run(folder.path)


def _zero() -> int:
    return 0

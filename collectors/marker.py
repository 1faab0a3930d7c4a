"""Workload ``marker``: a known on/off code as load on the host's processor, to be found again in a rail's power."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from melt_stream.collectors._process import guarded
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS
from melt_stream.marker import EDGES, NAME, edges
from melt_stream.outlet import Outlet


@dataclass
class Marker:
    """Play an m-sequence as the phase ``marker``; every edge is a row of the stream ``edges``.

    The load is a busy loop in processes of their own, nicer than this one, and the edges are told when it is over: while it plays,
    nothing of it runs here. A second play of the same instance is of another code. Raises ``DeviceError`` where it
    was not played to its end; there are no edges then.
    """

    chips: Literal[31, 63, 127, 511] = 127
    """Length of the code."""
    _: KW_ONLY
    chip_ms: Annotated[float, Gt(0), Le(1000)] = 51.7
    """Length of a chip; better no multiple of a rail's period, so that edges fall anywhere between samples."""
    cores: Annotated[int, Ge(1)] = 1
    """How many are busy at once: more of them make a higher step."""
    rise_ms: Annotated[float, Ge(0)] | None = None
    """How long the power takes to rise, where that is known; else it is fitted."""

    def __post_init__(self) -> None:
        self.plays = 0

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"chips": 31, "chip_ms": 2.0}}

    async def collect(self, out: Outlet) -> None:
        play, self.plays = self.plays, self.plays + 1
        out.row(EVENTS, kind="phase_start", name=NAME)
        try:
            told = await self._play(play)
        finally:
            out.row(EVENTS, kind="phase_end", name=NAME)
        rise = None if self.rise_ms is None else self.rise_ms * 1e6
        for k, tick in enumerate(told):
            out.row(EDGES, tick=tick, play=play, on=k % 2 == 0, rise=rise)

    async def _play(self, play: int) -> list[int]:
        plan = edges(self.chips, self.chip_ms * 1e6, play)
        command = [
            sys.executable,
            "-m",
            "melt_stream.collectors._marker_child",
            str(self.cores),
            *map(str, plan),
        ]
        async with guarded() as start:
            process = await start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            assert process.stdout is not None
            said = b""
            while part := await process.stdout.receive_some():
                said += part
            if await process.wait() != 0 or len(told := said.split()) != len(plan):
                raise DeviceError(
                    f"marker: expected {len(plan)} edges of its load, got exit status {process.returncode} and {said[:80]!r}"
                )
        return [int(word) for word in told]

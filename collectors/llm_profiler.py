"""Importer ``llm-profiler``: phases of a phone's tests with the energy of each, or polls of an iPhone's gauge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from melt_stream.collectors._llm_profiler import PHASES, Phase, official, phases, polls
from melt_stream.collectors._oracles import ORACLES, oracle
from melt_stream.errors import ConfigError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, PERCENT, S, Unit, V

MJ, MAH = Unit("mJ"), Unit("mA.h")
ENERGY = Stream("battery", rail=str, energy=MJ)
"""Counts up: all that the phases so far took."""
PROFILE = Stream(
    "profile", request=int, phase=str, tokens=int, seconds_told=S, tokens_per_s=float, uah_per_token=float,
    mj_per_token=float, celsius=CELSIUS,
)  # fmt: skip
GAUGE = Stream("gauge", volts=V, remaining=MAH, full=MAH, percent=PERCENT).as_polled()
SOURCE = "llm-profiler, from the phone's own gauge; it tells no accuracy"
COLUMNS = {
    "token_speed": ("tokens_per_s", "1/s"),
    "capacity": ("uah_per_token", "uA.h"),
    "energy": ("mj_per_token", "mJ"),
}
"""Of a results.csv, after the phase's name: the phase's own number, and its unit."""
MERGED, RAW, RESULTS = "merged.csv", "raw.json", "results.csv"


@dataclass
class LlmProfiler:
    """Read one test of one device to its end. Raises ``DataError`` where its files are none.

    A ``merged.csv`` has lengths and speeds but no times: its phases lie end to end. A ``raw.json`` has no current, so that it makes no rail.
    """

    path: Path
    """``merged.csv`` or ``raw.json``, or the test's folder; the official means are those of ``results.csv`` two folders above it."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        names = ",".join(
            f"{phase}_{key}" for phase in PHASES for key in ("len", "token_speed", "capacity", "energy")
        )
        return {
            "kind": "files",
            "tree": {MERGED: f"{names}\n64,320,0.87,13.1,128,54,10.1,151.3\n64,400,0.7,11,256,50,9.8,145\n"},
        }

    async def collect(self, out: Outlet) -> None:
        file = _the_file(Path(self.path))
        if file.suffix == ".json":
            await self._gauge(out, file)
        else:
            await self._phases(out, file)
        out.ready()

    async def _gauge(self, out: Outlet, file: Path) -> None:
        found, again = polls(file)
        self.start_utc_ns = found[0].at_s * 10**9
        for place, poll in enumerate(found):
            at = (poll.at_s - found[0].at_s) * 10**9 + 500_000_000  # a whole second: its middle
            percent = 100 * poll.remaining_mah / poll.full_mah if poll.full_mah else None
            out.row(
                GAUGE,
                tick=at,
                t_u=500_000_000,
                volts=poll.volts,
                remaining=poll.remaining_mah,
                full=poll.full_mah,
                percent=percent,
            )
            if place % 1024 == 0:
                await out.room()
        out.fact("repeats_left_out", again)

    async def _phases(self, out: Outlet, file: Path) -> None:
        found = phases(file)
        out.rail(
            ENERGY,
            Rail("battery", "battery", "counter", resolution=None, instrument="counter", source=SOURCE),
        )
        out.row(ENERGY, tick=0, rail="battery", energy=0.0)
        at = total = 0.0
        for place, phase in enumerate(found):
            start, at = at, at + phase.seconds
            total += phase.mj_per_token * phase.tokens
            self._phase(out, phase, round(start * 1e9), round(at * 1e9))
            out.row(ENERGY, tick=round(at * 1e9), rail="battery", energy=total)
            if place % 1024 == 0:
                await out.room()
        self._means(out, file, found)
        out.fact("placed", "end to end: the file has lengths and speeds, and no times")

    def _phase(self, out: Outlet, phase: Phase, start: int, stop: int) -> None:
        request, name = out.next_request(), f"{phase.name} {phase.tokens}"
        out.row(EVENTS, tick=start, kind="window_start", request=request, name=name)
        out.row(EVENTS, tick=stop, kind="window_end", request=request, name=name)
        out.row(
            PROFILE, tick=start, request=request, phase=phase.name, tokens=phase.tokens, seconds_told=phase.seconds,
            tokens_per_s=phase.tokens_per_s, uah_per_token=phase.uah_per_token, mj_per_token=phase.mj_per_token, celsius=phase.celsius,
        )  # fmt: skip
        told = None if phase.millijoules is None else phase.millijoules * 1e-3
        out.row(ORACLES, **oracle(request, "joules", "J", told, phase.mj_per_token * phase.tokens * 1e-3))

    def _means(self, out: Outlet, file: Path, found: list[Phase]) -> None:
        """The official figures of the test, which are plain means over its rows."""
        results = file.absolute().parents[2] / RESULTS if len(file.absolute().parents) > 2 else file
        told = (
            official(results, file.absolute().parent.name, file.absolute().parents[1].name)
            if results.is_file() and results != file
            else {}
        )
        for name in PHASES:
            for column, (attribute, unit) in COLUMNS.items():
                ours = fmean(getattr(phase, attribute) for phase in found if phase.name == name)
                out.row(
                    ORACLES, **oracle(None, f"{name}_{attribute}", unit, told.get(f"{name}_{column}"), ours)
                )


def _the_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (MERGED, RAW):
        if (path / name).is_file():
            return path / name
    raise ConfigError(
        f"{path}: expected {MERGED} or {RAW} in it, got neither; name the folder of one test of one device"
    )

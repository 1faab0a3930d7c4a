"""Importer ``melt``: a run directory of MELT's PhoneLab (a phone and a Monsoon) or JetsonLab (a board and its own rails)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Le

from melt_stream.clock import Reading
from melt_stream.collectors._melt_app import Span
from melt_stream.collectors._melt_clocks import PHONE, phone_readings, script_readings
from melt_stream.collectors._melt_files import MONSOON as TRACE
from melt_stream.collectors._melt_files import run_files
from melt_stream.collectors._melt_monsoon import import_monsoon, monsoon_start
from melt_stream.collectors._melt_rails import Board, first_moment
from melt_stream.collectors._melt_rows import emit_oracles, emit_run
from melt_stream.collectors._melt_rule import Rule, Window
from melt_stream.collectors._melt_run import LabRun, Prompt, read_run
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Boundary

NO_WINDOW = Window(float("inf"), float("inf"))
_LONGEST = 10**17
"""ns, three years: times further from the run's origin are of another run, or damaged."""
_SCALARS = (str, int, bool)


@dataclass
class MeltImport:
    """Read one run directory, all of its iterations, and end.

    Raises ``ConfigError`` where ``path`` holds no run directory or several (and says which), ``DataError`` with the place where a file is
    damaged.
    """

    path: Path
    """The run directory, ``run_cs..._mgl...``, or one above it."""
    _: KW_ONLY
    agree_s: Annotated[float, Gt(0), Le(1e6)] | None = None
    """By how much the wall clocks of phone and controller differ at most, in s, where you know it; nothing in a run's files says it."""
    boundary: Boundary = "battery"
    """What the Monsoon supplied."""
    keep_text: bool = False
    """Keep the answers' texts, as far as an app noted them."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        second = 1_709_741_000
        asked = f"start_date,duration,state\r\n{second}.5,1.0,load_model\r\n{second + 2}.0,1.0,Hi\r\n"
        lines = [f"{second + k // 50}{(k % 50) * 20_000_000 + n:09} " for k in range(200) for n in (0, 1000)]
        text = "".join(
            line + ("current_VDD_IN: 800 mA\n" if k % 2 else "voltage_VDD_IN: 5000 mV\n")
            for k, line in enumerate(lines)
        )
        tree = {"energy_iter0.log": text, "melt_measurements/measurements_iter0_conv0.csv": asked}
        return {"kind": "files", "tree": tree}

    async def collect(self, out: Outlet) -> None:
        files = run_files(Path(self.path))
        run = read_run(files)
        trace = files.path / TRACE
        began = monsoon_start(trace) if trace.exists() else None
        base = self.start_utc_ns = _origin(run, began)
        readings = self._readings(run, base)
        for reading in readings:
            out.clock_reading(reading)
        requests = await emit_run(out, run, base, keep_text=self.keep_text)
        if trace.exists():
            windows = [_window(prompt) for prompt in run.prompts]
            rule = await import_monsoon(out, trace, began, base, windows, self.boundary)
            emit_oracles(out, run, requests, lambda k: {"": (rule.joules(k), rule.charge(k))})
        elif files.energy:
            await _board(out, run, base, requests)
        else:
            emit_oracles(out, run, requests, lambda _: {})
        self._facts(out, run, tied=any(one.clock == PHONE for one in readings))
        out.ready()

    def _readings(self, run: LabRun, base: int) -> list[Reading]:
        found: list[Reading] = []
        if script := [at - base for talk in run.talks for one in talk.script for at in one.span]:
            found += script_readings(min(script), max(script))
        if run.files.phone:
            agree = None if self.agree_s is None else round(self.agree_s * 1e9)
            found += phone_readings(run, base, agree)
            moments = [at for talk in run.talks for at in talk.moments()]
            alone = not (run.stages or run.polled or (run.files.path / TRACE).exists())
            if moments and alone and not found:  # nothing but the phone's: its time line is the run's
                at = min(moments) - base
                found.append(Reading(PHONE, at, 1, at, at, kind="exact"))
        return found

    def _facts(self, out: Outlet, run: LabRun, *, tied: bool) -> None:
        out.fact("lab", "PhoneLab" if run.files.phone else "JetsonLab")
        for name, value in list(run.configuration.items())[:100]:
            if isinstance(value, _SCALARS) and value != "":
                out.fact(f"configuration.{name[:100]}", value if not isinstance(value, str) else value[:1000])
        out.fact("faults", run.faults or None)
        out.fact("clocks", self._said(run, tied))

    def _said(self, run: LabRun, tied: bool) -> str:
        if not run.files.phone:
            return "one clock, the board's, showed everything"
        if not tied:
            return "nothing in the directory ties the phone's clock to the controller's: its events have no place; set agree_s if you know"
        if self.agree_s is not None:
            return f"phone and controller are said to agree within {self.agree_s} s"
        if any(prompt.by_script for prompt in run.prompts):
            return "the phone's clock is tied to the controller's by what it did between the script's lines"
        return "the phone's clock is tied to the controller's by the stages that it acted in: see the bound in clocks; set agree_s if you know better"


async def _board(out: Outlet, run: LabRun, base: int, requests: Mapping[int, int]) -> None:
    """Write the logs of all iterations, and the figures of the prompts in each."""
    board, rules = Board(out, base), dict[int, dict[str, Rule]]()
    for iteration, path in sorted(run.files.energy.items()):
        windows = [_window(p) if p.key[0] == iteration else NO_WINDOW for p in run.prompts]
        rules[iteration] = await board.log(path, windows)

    def energy(place: int) -> dict[str, tuple[float | None, float | None]]:
        mine = rules.get(run.prompts[place].key[0], {})
        by_rail = {name: (rule.joules(place), rule.charge(place)) for name, rule in mine.items()}
        whole = board.account if board.account in mine else None
        return {"": (board.joules(mine, place), mine[whole].charge(place) if whole else None), **by_rail}

    emit_oracles(out, run, requests, energy)
    out.fact("lines_left_out", {"counts": board.counts, "others": board.junk})


def _window(prompt: Prompt) -> Window:
    span = prompt.span
    return Window(span.start / 1e9, span.stop / 1e9) if span else NO_WINDOW


def _origin(run: LabRun, began: int | None) -> int:
    """The run's 0, ns since 1970: the earliest time of the controller or board; the phone's where nobody else noted any.

    Raises ``DataError`` where there is no time at all, or one is years away.
    """
    spans: list[Span] = [one.span for talk in run.talks for one in talk.script] + [
        one.span for one in run.stages
    ]
    known = [at for span in spans for at in span] + [one.at for one in run.polled]
    known += [] if began is None else [began]
    known += [at for path in run.files.energy.values() if (at := first_moment(path)) is not None]
    device = [at for talk in run.talks for at in (*(e.at for e in talk.happened.events), *talk.moments())]
    device += [one.at for one in run.thermals]
    if not known and not device:
        raise DataError(f"{run.files.path}: expected files with times of a run, got none")
    base = min(known or device)
    if max(abs(at - base) for at in (*known, *device)) > _LONGEST:
        raise DataError(f"{run.files.path}: expected times of one run, got some that are years apart")
    return base

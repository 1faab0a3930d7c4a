"""Which clocks a run of MELT's labs has, and what ties them together: nothing is aligned that the directory does not prove.

The run's host axis is the controller's wall clock (JetsonLab: the board's), in ns since the run's origin.

    monsoon    what PyMonsoon counts. ``.t_monsoon`` was taken after the meter's calibration, while the count began before it: so the count began
               not after ``.t_monsoon``, and not earlier than that less the first stamp, since that sample was collected after it
    phone      the phone's wall clock. What it did for a prompt lies between the expect script's sending it and its seeing the answer's end; what it
               did in iteration r lies in the controller's stage ``Run_r``
    script     the expect script's: the controller's own, cut to whole milliseconds
"""

from __future__ import annotations

from collections.abc import Iterator

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._melt_app import Span
from melt_stream.collectors._melt_run import MS, LabRun, Talk

MONSOON = Clock("monsoon", rho_ppm=0.0, same_rate=True)
"""ns since PyMonsoon began to count, by the controller's clock."""
PHONE = Clock("phone", rho_ppm=500.0)
"""The phone's wall clock, ns since the run's origin; the network's time may slew it."""
SCRIPT = Clock("script", rho_ppm=0.0, same_rate=True)
"""The controller's in whole ms, ns since the run's origin."""


def monsoon_readings(began: int, first: int, last: int, late: int) -> Iterator[Reading]:
    """Yield what ties the meter's count to the host: ``began`` (host ns) is ``.t_monsoon``, ``first`` and ``last`` are stamps, ns.

    ``late`` is how far a placed sample may be off its packet's stamp, ns.
    """
    for tick in (first, last):
        yield Reading(MONSOON, tick, 1, began + tick - first - 2 * late, began + tick + late)


def script_readings(first: int, last: int) -> Iterator[Reading]:
    """Yield the width of the script's clock, at the first and the last host time, ns."""
    for tick in (first, last):
        yield Reading(SCRIPT, tick, 1, tick, tick + MS)


def phone_readings(run: LabRun, base: int, agree_ns: int | None) -> list[Reading]:
    """Return what ties the phone's clock to the controller's; ``agree_ns`` is by how much they differ at most, where somebody knows."""
    found = [reading for talk in run.talks for reading in _by_script(talk, base)]
    for iteration in sorted({talk.key[0] for talk in run.talks}):
        found += _by_stage(run, iteration, base)
    moments = [at for talk in run.talks for at in talk.moments()] if agree_ns is not None else []
    for at in {min(moments), max(moments)} if moments else ():
        tick = at - base
        found.append(Reading(PHONE, tick, width(at), tick - (agree_ns or 0), tick + (agree_ns or 0)))
    return found


def width(at: int) -> int:
    """The step of the clock that showed this time: whole milliseconds are cut to them."""
    return MS if at % MS == 0 else 1


def _by_script(talk: Talk, base: int) -> Iterator[Reading]:
    """The effects of the script's lines come after them, and before it saw their end."""
    if not talk.matched:
        return
    for prompt in talk.prompts:
        if prompt.span and prompt.by_script and prompt.answer:
            stops = [step.at for step in prompt.answer.steps]
            yield from _within(
                prompt.answer.start, max(stops, default=prompt.answer.start), prompt.span, base
            )
    loads, asked = talk.happened.loads(), [one for one in talk.script if one.load]
    if len(loads) == len(asked) == 1:
        yield from _within(loads[0].start, loads[0].stop or loads[0].start, asked[0].span, base)


def _by_stage(run: LabRun, iteration: int, base: int) -> Iterator[Reading]:
    moments = [at for talk in run.talks if talk.key[0] == iteration for at in talk.moments()]
    by_name = {stage.name: stage.span for stage in run.stages}
    span = by_name.get(f"Run_{iteration}", by_name.get("Experiment"))
    if moments and span:
        yield from _within(min(moments), max(moments), span, base)


def _within(first: int, last: int, span: Span, base: int) -> Iterator[Reading]:
    """``first`` and ``last`` of the phone lie in ``span`` of the controller, which was cut to whole milliseconds."""
    yield Reading(PHONE, first - base, width(first), not_before=span.start - base)
    yield Reading(PHONE, last - base, width(last), not_after=span.stop - base + MS)

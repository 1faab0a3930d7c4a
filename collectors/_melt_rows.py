"""Prompts, loads, stages and thermal states of a run of MELT's labs, as rows of our streams; MELT's own figures beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from melt_stream.clock import HOST, Clock
from melt_stream.collectors._melt_app import STATES, Span
from melt_stream.collectors._melt_clocks import PHONE, SCRIPT
from melt_stream.collectors._melt_run import LabRun, Prompt, Talk
from melt_stream.collectors._oracles import ORACLES, oracle
from melt_stream.events import EVENTS, events
from melt_stream.outlet import Outlet, Row
from melt_stream.stream import Stream
from melt_stream.units import BYTE, PERCENT, A, S, V

SCRIPT_EVENTS, PHONE_EVENTS = events("script_events", SCRIPT), events("phone_events", PHONE)
STAGES = Stream("stages", stage=str, duration=S, rx=BYTE, tx=BYTE)
ADB = Stream("adb", volts=V, amps=A, cpu_util=PERCENT)
_MWH = 3.6
_BLOCK = 4096
Placed = tuple[Stream, Row]


def device_streams(phone: bool) -> tuple[Stream, Stream, Stream]:
    """Return the streams on the device's clock: our events, the thermal states, and the runtime's events as they are."""
    clock: Clock = PHONE if phone else HOST
    return (
        PHONE_EVENTS if phone else EVENTS,
        Stream("app_thermal", clock=clock, state=str, level=int),
        Stream("melt_events", clock=clock, iteration=int, conversation=int, name=str, edge=str),
    )


async def emit_run(out: Outlet, run: LabRun, base: int, *, keep_text: bool) -> dict[int, int]:
    """Write everything but power; return the request number of each prompt, by its place in ``run.prompts``."""
    ours, thermal, theirs = device_streams(run.files.phone)
    placed: list[Placed] = []
    requests: dict[int, int] = {}
    for talk in run.talks:
        for event in talk.happened.events:
            out.row(
                theirs, tick=event.at - base, iteration=talk.key[0], conversation=talk.key[1], name=event.name, edge=event.edge
            )  # fmt: skip
        await out.room()
        placed += _spans(talk, ours)
    placed += _loads(run, ours)
    for place, prompt in enumerate(run.prompts):
        if prompt.span or prompt.answer:
            requests[place] = out.next_request()
            placed += _prompt(prompt, requests[place], ours, keep_text)
    placed += _stages(out, run, base)
    for count, (stream, row) in enumerate(sorted(placed, key=lambda one: int(one[1]["tick"]))):
        out.row(stream, **{**row, "tick": row["tick"] - base})
        if count % _BLOCK == 0:
            await out.room()
    for at, state in sorted(run.thermals):
        level = STATES.index(state.lower()) if state.lower() in STATES else None
        out.row(thermal, tick=at - base, state=state, level=level)
    for one in run.polled:
        out.row(ADB, tick=one.at - base, volts=one.volts, amps=one.amps, cpu_util=one.cpu)
    return requests


def _prompt(prompt: Prompt, request: int, ours: Stream, keep_text: bool) -> Iterator[Placed]:
    """A window from asking to the end, and within it the prefill and the tokens, as far as they are known."""
    about: Row = {"request": request, "name": prompt.name}
    counted = {"prompt_tokens": prompt.stats.input, "completion_tokens": prompt.stats.output}
    usage = {name: value for name, value in counted.items() if value is not None}
    told: Row = {"detail": json.dumps(prompt.detail | ({"usage": usage} if usage else {}))}
    if keep_text:
        told["text"] = prompt.text
    if prompt.span:
        asker = SCRIPT_EVENTS if prompt.by_script else ours
        yield asker, {"tick": prompt.span.start, "kind": "window_start", **about}
        yield asker, {"tick": prompt.span.stop, "kind": "window_end", **about, **told}
    answer = prompt.answer
    if answer is None:
        return
    if not answer.steps:  # what was done of it, and when, is not known
        if not prompt.span:
            yield (
                ours,
                {
                    "tick": answer.start,
                    "kind": "request_error",
                    **about,
                    "detail": json.dumps({"error": "no token has a time"}),
                },
            )
        return
    yield ours, {"tick": answer.start, "kind": "prefill_start", "prompt_total": prompt.stats.input, **about}
    for step in answer.steps:
        yield ours, {"tick": step.at, "kind": "token", "index": step.index, "count": step.count, **about}
    if not prompt.span:
        yield ours, {"tick": max(step.at for step in answer.steps), "kind": "request_end", **about, **told}


def _spans(talk: Talk, ours: Stream) -> Iterator[Placed]:
    """What the runtime names and we do not; a span without its end is no phase, but a mark."""
    for span in talk.happened.others():
        yield from _named(ours, "phase", span.name, span.start, span.stop)


def _loads(run: LabRun, ours: Stream) -> Iterator[Placed]:
    """Each load once: an app repeats the one it had with every conversation."""
    seen = set()
    for talk in run.talks:
        for load in talk.loads:
            if load[1:] not in seen:
                seen.add(load[1:])
                yield from _named(ours, "load", "load", load.start, load.stop)
        for one in talk.script if not talk.loads else ():
            if one.load:
                yield from _named(SCRIPT_EVENTS, "load", "load", *one.span)


def _named(stream: Stream, what: str, name: str, start: int, stop: int | None) -> Iterator[Placed]:
    if stop is None:
        yield stream, {"tick": start, "kind": "mark", "name": f"{name} without an end"}
        return
    yield stream, {"tick": start, "kind": f"{what}_start", "name": name}
    yield stream, {"tick": stop, "kind": f"{what}_end", "name": name}


def _stages(out: Outlet, run: LabRun, base: int) -> Iterator[Placed]:
    """The controller's stages; those that hold no other one are phases too, so that none counts twice."""
    for stage in sorted(run.stages, key=lambda one: one.span):
        start, stop = stage.span
        out.row(
            STAGES,
            tick=start - base,
            stage=stage.name,
            duration=(stop - start) / 1e9,
            rx=stage.rx,
            tx=stage.tx,
        )
        if not any(other is not stage and _holds(stage.span, other.span) for other in run.stages):
            yield from _named(EVENTS, "phase", stage.name, start, stop)


def _holds(outer: Span, inner: Span) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop and outer != inner


Energy = Callable[[int], Mapping[str, tuple[float | None, float | None]]]
"""From a prompt's place to, by rail ('' for the account's), its energy in J and charge in mAh by MELT's rule."""


def emit_oracles(out: Outlet, run: LabRun, requests: Mapping[int, int], energy: Energy) -> None:
    """Write MELT's figures of each prompt: as its report has them, and recomputed by its rule."""
    for place, request in requests.items():
        prompt = run.prompts[place]
        told = run.reported.get((*prompt.key, prompt.number), {})
        for rail, (joules, charge) in energy(place).items():
            _energies(out, request, prompt, rail, (joules, charge), told)
        rates = {
            "decode_tokens_per_s": ("tps", prompt.stats.tps),
            "prefill_tokens_per_s": ("prefill_tps", prompt.stats.prefill_tps),
        }
        for quantity, (column, own) in rates.items():
            _row(out, request, quantity, "/s", told.get(column), own)


def _energies(
    out: Outlet, request: int, prompt: Prompt, rail: str, own: tuple[float | None, float | None], told: Mapping[str, float]
) -> None:  # fmt: skip
    (joules, charge), tokens = own, prompt.stats.output
    at, spaced = (f".{rail}", f" {rail}") if rail else ("", "")
    if not rail:
        _row(out, request, "joules", "J", None, joules)
    each = told.get(f"energy_pt{spaced} (mWh)")
    _row(
        out, request, f"joules_per_output_token{at}", "J", None if each is None else each * _MWH,
        joules / tokens if joules is not None and tokens else None,
    )  # fmt: skip
    _row(
        out, request, f"charge_per_output_token{at}", "mA.h", told.get(f"discharge_pt{spaced} (mAh)"),
        charge / tokens if charge is not None and tokens else None,
    )  # fmt: skip


def _row(
    out: Outlet, request: int, quantity: str, unit: str, reported: float | None, own: float | None
) -> None:
    """One figure; MELT's report writes -1 for what it does not know."""
    reported = None if reported is not None and reported < 0 else reported
    if reported is not None or own is not None:
        out.row(ORACLES, **oracle(request, quantity, unit, reported, own))

"""A run of MELT's labs, read: per conversation what was asked, what the device did, what the runtime counted; joined prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from melt_stream.collectors._files import numbered_lines, read_json
from melt_stream.collectors._melt_app import Conversation, Span, ThermalState, conversations, thermal_states
from melt_stream.collectors._melt_events import Answer, Happened, Named, answers, read_events
from melt_stream.collectors._melt_files import ADB, CONFIGURATION, RESULTS, STAGES, Key, RunFiles
from melt_stream.collectors._melt_numbers import Stats, llama_timings, mlc_statistics, runtime_stats
from melt_stream.collectors._melt_tables import (
    Asked,
    Polled,
    Reported,
    Stage,
    asked,
    polled,
    reported,
    stages,
    timings,
)
from melt_stream.errors import DataError

MOST_EVENTS = 5_000_000
"""Of a run."""
UNKNOWN = Stats()
MS = 1_000_000
"""The expect script's clock, and Android's, show whole milliseconds."""


@dataclass
class Prompt:
    """One prompt and its answer."""

    key: Key
    number: int
    """In its conversation, from 0."""
    span: Span | None = None
    """From asking to the answer's end; ns since 1970 of whoever asked."""
    by_script: bool = False
    """The expect script asked, on its own clock; else the app did, on the device's."""
    answer: Answer | None = None
    """On the device's clock."""
    stats: Stats = UNKNOWN
    detail: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"iter{self.key[0]} conv{self.key[1]} prompt {self.number}"


@dataclass
class Talk:
    """One conversation."""

    key: Key
    prompts: list[Prompt]
    script: list[Asked]
    happened: Happened
    load: Span | None = None
    """As the app has it."""
    matched: bool = True
    """False where prompts and answers could not be told which belong together: their numbers differ."""

    @property
    def loads(self) -> list[Named]:
        """Loads on the device's clock: its own events, or what the app noted."""
        return self.happened.loads() or ([Named("load", *self.load)] if self.load else [])

    def moments(self) -> Iterator[int]:
        """Yield every time on the device's clock at which the experiment did something: no start of an app, no end of it."""
        for load in self.loads:
            yield from (at for at in load[1:] if at is not None)
        for prompt in self.prompts:
            if prompt.span and not prompt.by_script:
                yield from prompt.span
            if prompt.answer:
                yield prompt.answer.start
                yield from (step.at for step in prompt.answer.steps)


@dataclass
class LabRun:
    """Everything but the power."""

    files: RunFiles
    talks: list[Talk]
    stages: list[Stage]
    polled: list[Polled]
    thermals: list[ThermalState]
    reported: Reported
    configuration: Mapping[str, Any]
    faults: dict[str, int]

    @property
    def prompts(self) -> list[Prompt]:
        """All prompts, in order."""
        return [prompt for talk in self.talks for prompt in talk.prompts]


def read_run(files: RunFiles) -> LabRun:
    """Read all tables, events and transcripts of a run. Raises ``DataError`` with the place where one is damaged."""
    told = _configuration(files)
    apps = {r: conversations(path) for r, path in sorted(files.talks.items())}
    keys = sorted({*files.keys, *((r, c) for r, found in apps.items() for c in range(len(found)))})
    faults: dict[str, int] = {}
    talks, events = [], 0
    for key in keys:
        found = apps.get(key[0], [])
        talk = _talk(files, key, found[key[1]] if key[1] < len(found) else None, str(told.get("model") or ""))
        events += len(talk.happened.events)
        if events > MOST_EVENTS:
            raise DataError(f"{files.path}: expected at most {MOST_EVENTS} events of a run, got more")
        unknown = {"conversations whose prompts and answers could not be matched": int(not talk.matched)}
        for name, count in {**talk.happened.faults, **unknown}.items():
            faults[name] = faults.get(name, 0) + count
        talks.append(talk)
    states = [state for _, path in sorted(files.thermals.items()) for state in thermal_states(path)]
    at = files.path
    return LabRun(
        files, talks, stages(at / STAGES), polled(at / ADB), states, reported(at / RESULTS), told,
        {name: count for name, count in faults.items() if count},
    )  # fmt: skip


def _configuration(files: RunFiles) -> Mapping[str, Any]:
    path = files.path / CONFIGURATION
    told = read_json(path) if path.exists() else {}
    if not isinstance(told, dict):
        raise DataError(f"{path}: expected an object, got {type(told).__name__}")
    return told


def _talk(files: RunFiles, key: Key, app: Conversation | None, model: str) -> Talk:
    script = asked(files.script[key]) if key in files.script else []
    prompts = _of_app(key, app) if app and app.questions else _of_script(key, script)
    counted = _stats(files, key, app, len(prompts))
    happened = Happened([], [])
    if path := files.events.get(key):
        happened = read_events(numbered_lines(path), path)
    found = answers(happened, counted)
    if len(found) != len(counted):
        found = answers(happened)
    talk = Talk(key, prompts, script, happened, app.load if app else None)
    talk.matched = _match(prompts, found, same_clock=not files.phone or bool(app))
    if not talk.matched or not prompts:
        prompts += [Prompt(key, len(prompts) + n, answer=answer) for n, answer in enumerate(found)]
    for number, prompt in enumerate(prompts):
        if len(counted) >= len(prompts) and number < len(counted):
            prompt.stats = counted[number]
        prompt.detail = {"model": app.model if app else model} | prompt.detail
    return talk


def _of_app(key: Key, app: Conversation) -> list[Prompt]:
    return [
        Prompt(key, n, one.span, detail=dict(one.numbers), text=one.output)
        for n, one in enumerate(app.questions)
    ]


def _of_script(key: Key, script: list[Asked]) -> list[Prompt]:
    return [
        Prompt(key, n, one.span, by_script=True)
        for n, one in enumerate(one for one in script if not one.load)
    ]


def _stats(files: RunFiles, key: Key, app: Conversation | None, prompts: int) -> list[Stats]:
    """What the runtime counted of each prompt: its timers' file, what the app kept, or the transcript."""
    if path := files.timings.get(key):
        return timings(path)[:prompts]
    if app:
        found = []
        for question in app.questions:
            own, seen = runtime_stats(question.numbers.get("runtime_stats")), question.numbers
            found.append(own._replace(input=seen.get("input_tokens"), output=seen.get("output_tokens")))
        return found
    if path := files.outputs.get(key):
        return llama_timings(numbered_lines(path), prompts) or mlc_statistics(numbered_lines(path))[:prompts]
    return []


def _match(prompts: Sequence[Prompt], found: Sequence[Answer], *, same_clock: bool) -> bool:
    """Give each prompt its answer: by time where one clock shows both, else by order where there are as many.

    False where that does not work out for all answers.
    """
    if not same_clock:
        if len(prompts) == len(found):
            for prompt, answer in zip(prompts, found, strict=True):
                prompt.answer = answer
        return len(prompts) == len(found) or not found
    pairs = []
    for answer in found:
        inside = [p for p in prompts if p.span and p.span.start - MS <= answer.start < p.span.stop + MS]
        pairs += [(inside[0], answer)] if inside else []
    if len(pairs) != len(found) or len({prompt.number for prompt, _ in pairs}) != len(found):
        return not found
    for prompt, answer in pairs:
        prompt.answer = answer
    return True

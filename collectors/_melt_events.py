"""MELT's event files (``event,ns`` or ``event ns``): spans by name, and from them each answer's prefill and tokens. Pure.

    llama.cpp     load_model, prompt.N.tokenize, generate.N.decode (N counts the steps of the whole process), model_free
    MLC's apps    init, reload.N, unload.N, reset_chat.N, prefill.N, generate.decode.N (N counts those of a conversation)
    LLMFarmEval   load_model, generate.N (N counts the questions)

each with ``.start`` and ``.end``, in any order; an end may be missing. Times are ns since 1970 of the device's wall clock.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from melt_stream.collectors._melt_numbers import Stats
from melt_stream.errors import DataError

MOST = 1_000_000
"""Events of one file."""
_LAST_NS = 8 * 10**18
_LINE = re.compile(r"\s*([\w.-]{1,200})\.(start|end)(?:\s*,\s*|\s+)(\d{1,19})\s*,?\s*")
_HEADER = re.compile(r"event\s*[,\s]\s*\w*", re.IGNORECASE)
_TOKENIZE = re.compile(r"prompt\.\d{1,9}\.tokenize")
_STEP = re.compile(r"generate\.\d{1,9}\.decode")
_PREFILL = re.compile(r"prefill\.\d{1,9}")
_DECODE = re.compile(r"generate\.decode\.\d{1,9}")
_GENERATE = re.compile(r"generate\.\d{1,9}")
_LOAD = re.compile(r"load_model|reload\.\d{1,9}")
_OTHER = re.compile(
    r"(init|unload|reset_chat|model_free|process_system_prompts|prompt)(?:\.\d{1,9})?(\.tokenize)?"
)


class Event(NamedTuple):
    """One line."""

    at: int
    name: str
    edge: str
    """start or end"""


@dataclass(frozen=True)
class Step:
    """Tokens that came at one time."""

    at: int
    index: int
    """Of the last of them, from 0; token 0 is what the prefill gave."""
    count: int = 1


@dataclass(frozen=True)
class Answer:
    """One answer, as far as the events tell."""

    start: int
    """When the work on its prompt began."""
    steps: list[Step] = field(default_factory=list)


class Named(NamedTuple):
    """A span by name; ``stop`` is None where the end is missing."""

    name: str
    start: int
    stop: int | None


@dataclass
class Happened:
    """One file."""

    events: list[Event]
    spans: list[Named]
    """In order of their starts."""
    faults: dict[str, int] = field(default_factory=dict)
    """How many events are there twice, lack the other end, or end before they start."""

    @property
    def coarse(self) -> bool:
        """True where every time is a whole millisecond."""
        return bool(self.events) and all(event.at % 1_000_000 == 0 for event in self.events)

    def loads(self) -> list[Named]:
        """Return the spans in which a model was loaded."""
        return [span for span in self.spans if _LOAD.fullmatch(span.name)]

    def others(self) -> list[Named]:
        """Return the spans that the runtime names and we do not, without those of single tokens; ``reset_chat.3`` is ``reset_chat``."""
        found = [(span, _OTHER.fullmatch(span.name)) for span in self.spans]
        return [
            Named("tokenize" if match[2] else match[1], span.start, span.stop)
            for span, match in found
            if match and (match[2] or match[1] != "prompt")
        ]


def read_events(lines: Iterable[tuple[int, str]], path: Path) -> Happened:
    """Read a file. Raises ``DataError`` with the line where it holds something else."""
    events: list[Event] = []
    for number, line in lines:
        if (match := _LINE.fullmatch(line)) is None:
            if not line.strip() or (number == 1 and _HEADER.fullmatch(line.strip())):
                continue
            raise DataError(
                f"{path}, line {number}: expected 'event.start ns' or 'event.end,ns', got {line[:80]!r}"
            )
        if int(match[3]) > _LAST_NS:
            raise DataError(f"{path}, line {number}: expected ns up to {_LAST_NS}, got {match[3]}")
        events.append(Event(int(match[3]), match[1], match[2]))
        if len(events) > MOST:
            raise DataError(f"{path}, line {number}: expected at most {MOST} events, got more")
    return _paired(events)


def _paired(events: list[Event]) -> Happened:
    ends: dict[str, dict[str, int]] = {"start": {}, "end": {}}
    twice = 0
    for event in events:
        if event.name in ends[event.edge]:
            twice += 1
        ends[event.edge].setdefault(event.name, event.at)
    starts, stops = ends["start"], ends["end"]
    reversed_ = {name for name, at in starts.items() if stops.get(name, at) < at}
    spans = [Named(n, at, None if n in reversed_ else stops.get(n)) for n, at in starts.items()]
    faults = {
        "events there twice": twice,
        "starts without an end": len(starts.keys() - stops.keys()),
        "ends without a start": len(stops.keys() - starts.keys()),
        "ends before their starts": len(reversed_),
    }
    return Happened(
        sorted(events), sorted(spans, key=lambda span: span.start), {k: v for k, v in faults.items() if v}
    )


def answers(happened: Happened, stats: Sequence[Stats] = ()) -> list[Answer]:
    """Return the answers in order; ``stats`` say of each how many tokens the runtime counted, where it did."""
    patterns = {
        "tokenize": _TOKENIZE, "step": _STEP, "prefill": _PREFILL, "decode": _DECODE, "generate": _GENERATE,
    }  # fmt: skip
    by: dict[str, list[Named]] = {name: [] for name in patterns}
    for span in happened.spans:
        for name, pattern in patterns.items():
            if pattern.fullmatch(span.name):
                by[name].append(span)
    if by["prefill"]:
        groups = _grouped(by["prefill"], by["decode"])
        return [_of_mlc(begin, steps) for begin, steps in groups]
    if by["tokenize"]:
        groups = _grouped(by["tokenize"], by["step"])
        return [
            _of_llama(begin, steps, stats[k] if k < len(stats) else Stats())
            for k, (begin, steps) in enumerate(groups)
        ]
    return [_of_farm(span, stats[k] if k < len(stats) else Stats()) for k, span in enumerate(by["generate"])]


def _grouped(begins: list[Named], steps: list[Named]) -> list[tuple[Named, list[Named]]]:
    """Give each beginning the steps that start before the next one; steps before the first are nobody's."""
    starts = [span.start for span in begins]
    groups: list[tuple[Named, list[Named]]] = [(begin, []) for begin in begins]
    for step in steps:
        if place := bisect_right(starts, step.start):
            groups[place - 1][1].append(step)
    return groups


def _of_mlc(prefill: Named, decodes: list[Named]) -> Answer:
    return Answer(prefill.start, _steps([prefill, *decodes]))


def _of_llama(tokenize: Named, steps: list[Named], stats: Stats) -> Answer:
    """The first steps are the prompt's batches: as many as the runtime did not count as single tokens."""
    batches = 1 if stats.output is None else min(max(1, len(steps) - stats.output), len(steps))
    return Answer(tokenize.start, _steps(steps[batches - 1 :] if batches else []))


def _of_farm(generate: Named, stats: Stats) -> Answer:
    """Its prefill takes as long as llama.cpp's own timer says, as MELT's report has it; single tokens have no times."""
    if stats.prefill_ns is None or stats.output is None or generate.stop is None:
        return Answer(generate.start)
    first = min(generate.start + stats.prefill_ns, generate.stop)
    later = [Step(generate.stop, stats.output, stats.output)] if stats.output else []
    return Answer(generate.start, [Step(first, 0), *later])


def _steps(spans: list[Named]) -> list[Step]:
    return [Step(span.stop, index) for index, span in enumerate(spans) if span.stop is not None]

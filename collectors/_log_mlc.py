"""What MLC-LLM tells of its times: the statistics of its chat programs, and the trace that its engine records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from melt_stream.collectors._log_said import (
    NOW,
    At,
    Said,
    Unreadable,
    before_line,
    sequence,
    window,
)

_RATES = re.compile(r"prefill: (\d+(?:\.\d+)?) tok(?:ens)?/s, decode: (\d+(?:\.\d+)?) tok(?:ens)?/s")
_BLOCK = re.compile(r"-+ (prefill|decode) -+")
_ENTRY = re.compile(r"\s*(throughput|total[ _]tokens|total[ _]time): (.+)")
_NUMBER = re.compile(r"\s*(\d{1,15}(?:\.\d+)?(?:e[+-]?\d{1,2})?)(?: (?:tok/s|tok|s))?\s*")
LONGEST_JSON = 1 << 20
PHASES = ("prefill", "decode")


@dataclass
class MlcStats:
    """Reads ``prefill: X tok/s, decode: Y tok/s`` (rates alone: a mark), and the verbose statistics as JSON or as blocks of text.

    These are sums over all prompts since the chat was reset: one window, unless ``one_prompt``.
    """

    one_prompt: bool = False
    _json: str = ""
    _block: str = ""
    _told: dict[str, dict[str, float]] = field(default_factory=dict)
    _number: int = 0

    def take(self, text: str) -> Sequence[Said]:
        if (rates := _RATES.search(text)) is not None:
            detail = {"prefill_tokens_per_s": float(rates[1]), "decode_tokens_per_s": float(rates[2])}
            return [Said("mark", NOW, None, {"name": "mlc", "detail": detail})]
        if self._json or text.lstrip().startswith("{"):
            return self._more_json(text)
        if (block := _BLOCK.fullmatch(text.strip())) is not None:
            self._block = block[1]
        elif self._block and (entry := _ENTRY.fullmatch(text)) is not None:
            self._told.setdefault(self._block, {})[entry[1].replace(" ", "_")] = _number(entry[2])
            if all("total_time" in self._told.get(phase, ()) for phase in PHASES):
                told, self._told, self._block = self._told, {}, ""
                return self._phases(told)
        return []

    def _more_json(self, text: str) -> Sequence[Said]:
        self._json += text + "\n"
        try:
            told = json.loads(self._json)
        except (ValueError, RecursionError) as exc:
            if len(self._json) > LONGEST_JSON or isinstance(exc, RecursionError):
                self._json = ""
                raise Unreadable(f"expected JSON of at most {LONGEST_JSON} characters, got more") from exc
            return []
        self._json = ""
        if not isinstance(told, dict) or not all(isinstance(told.get(phase), dict) for phase in PHASES):
            return []
        return self._phases({
            phase: {
                key.replace(" ", "_"): _number(value)
                for key, value in told[phase].items()
                if key.replace(" ", "_") in ("throughput", "total_tokens", "total_time")
            }
            for phase in PHASES
        })  # fmt: skip

    def _phases(self, told: Mapping[str, Mapping[str, float]]) -> Sequence[Said]:
        prefill, decode = told["prefill"], told["decode"]
        if not all("total_time" in phase and "total_tokens" in phase for phase in (prefill, decode)):
            raise Unreadable(f"expected total tokens and total time of prefill and decode, got {told}")
        self._number += 1
        first = before_line(decode["total_time"] * 1e9)
        start = before_line((prefill["total_time"] + decode["total_time"]) * 1e9)
        detail = {"runtime": "mlc", **{phase: dict(told[phase]) for phase in PHASES}}
        if not self.one_prompt:
            return window(str(self._number), start, NOW, "mlc session", detail)
        prompt, steps = int(prefill["total_tokens"]), int(decode["total_tokens"])
        return sequence(str(self._number), start, first, NOW, prompt, steps + 1, detail)

    def finish(self) -> Sequence[Said]:
        left, self._json = self._json, ""
        if left:
            raise Unreadable(f"expected the end of the JSON that began with {left[:80]!r}, got none")
        return []


class Event(BaseModel):
    """An event of a Chrome trace."""

    name: str
    ph: str
    ts: float = Field(ge=0, lt=1 << 52)
    tid: int | str = ""


class Trace(BaseModel):
    """A Chrome trace as an object."""

    events: list[Event] = Field(alias="traceEvents")


TRACE: TypeAdapter[list[Event] | Trace] = TypeAdapter(list[Event] | Trace)


@dataclass
class MlcTrace:
    """Reads the Chrome trace of ``EventTraceRecorder``: us of the system clock, a ``tid`` each request; ``B`` and ``E`` are a step's ends."""

    _text: list[str] = field(default_factory=list)
    _length: int = 0

    def take(self, text: str) -> Sequence[Said]:
        if not self._text and not text.lstrip().startswith(("[", "{")):
            return []
        self._length += len(text)
        if self._length > 64 * LONGEST_JSON:
            self._text, self._length = [], 0
            raise Unreadable(f"expected a trace of at most {64 * LONGEST_JSON} characters, got more")
        self._text.append(text)
        return []

    def finish(self) -> Sequence[Said]:
        text, self._text, self._length = "\n".join(self._text), [], 0
        if not text:
            return []
        try:
            told = TRACE.validate_json(text)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            raise Unreadable(
                f"expected a Chrome trace as JSON, got {text[:80]!r}: {first['loc'][1:]}: {first['msg']}"
            ) from exc
        requests: dict[str, list[tuple[int, str, str]]] = {}
        for event in told if isinstance(told, list) else told.events:
            requests.setdefault(str(event.tid), []).append((round(event.ts), event.name, event.ph))
        return [said for request, steps in requests.items() for said in _of_request(request, sorted(steps))]


def _of_request(request: str, steps: list[tuple[int, str, str]]) -> Iterator[Said]:
    """The first token comes with the end of the last prefill before the first decode; each decode, or verified draft, gives one step."""
    decodes = [ts for ts, name, phase in steps if phase == "E" and name in ("decode", "verify")]
    begun = min(
        (ts for ts, name, phase in steps if phase == "B" and name in ("decode", "draft")), default=1 << 62
    )
    prefill = [ts for ts, name, phase in steps if name == "prefill" and phase == "B"]
    filled = [ts for ts, name, phase in steps if name == "prefill" and phase == "E" and ts <= begun]
    added = [ts for ts, name, phase in steps if name == "request added to engine"]
    if not prefill:
        yield from (Said("mark", _us(ts), None, {"name": name}) for ts, name, _ in steps)
        return
    yield Said("request_sent", _us(min(added, default=prefill[0])), request, {"name": request})
    yield Said("prefill_start", _us(prefill[0]), request)
    tokens = [*filled[-1:], *decodes]
    for index, ts in enumerate(tokens):
        yield Said("token", _us(ts), request, {"index": index, "count": 1})
    yield Said("request_end", _us(steps[-1][0]), request, {"detail": {"runtime": "mlc"}})


def _us(ts: int) -> At:
    return At("realtime", ts * 1000, 1000)


def _number(value: Any) -> float:
    if isinstance(value, str) and (found := _NUMBER.fullmatch(value)) is not None:
        return float(found[1])
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15:
        return float(value)
    raise Unreadable(f"expected a number, got {str(value)[:80]!r}")

"""What llama.cpp's programs print of their times: ``llama-bench -o jsonl``, and the timings of servers and of sessions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from melt_stream.collectors._log_said import (
    NOW,
    At,
    Count,
    Said,
    before_line,
    read,
    sequence,
    window,
)

_STAMP = re.compile(r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) (?:[A-Z] )?")
"""Of ``--log-timestamps``: minutes, seconds, ms, us since the program began."""
_LAUNCH = re.compile(r"slot\s+launch_slot_: id\s+\d+ \| task (\d+) \| processing task")
_SLOT = re.compile(r"slot\s+print_timing: id\s+\d+ \| task (\d+) \|")
_TIME = re.compile(
    r"(?P<what>load|sample|sampling|prompt eval|eval|total) time\s*=\s*(?P<ms>\d{1,12}(?:\.\d+)?) ms(?:\s*/\s*(?P<n>\d{1,12}) )?"
)


class LlamaBench(BaseModel):
    """A test of ``llama-bench -o jsonl``; what else the line has is kept as it is."""

    model_config = ConfigDict(extra="allow")
    n_prompt: Count
    n_gen: Count
    n_depth: Count = 0
    samples_ns: list[Count]
    test_time: str = ""
    model_type: str = ""
    build_commit: str = ""


@dataclass
class Bench:
    """Reads its lines.

    A line comes when its test has ended, and says how long each repetition took, not when: they are taken to have
    followed each other up to the line. A test of a prompt is a prefill, one of generation a decode of ``n_gen`` steps from a given token; of
    one that does both only the sum is told: a window.
    """

    _number: int = 0

    def take(self, text: str) -> Sequence[Said]:
        if not text.startswith("{"):
            return []
        told = read(LlamaBench, text)
        left, said = sum(told.samples_ns), list[Said]()
        for k, took in enumerate(told.samples_ns):
            self._number += 1
            start, end = before_line(left), before_line(left - took)
            left -= took
            said += self._repetition(told, k, start, end)
        return said

    def _repetition(self, told: LlamaBench, k: int, start: At, end: At) -> list[Said]:
        request = str(self._number)
        detail = {
            "runtime": "llama-bench", "repetition": k, "n_prompt": told.n_prompt, "n_gen": told.n_gen, "n_depth": told.n_depth,
            "model": told.model_type, "build": told.build_commit, "test_time": told.test_time,
        }  # fmt: skip
        if told.n_prompt and told.n_gen:
            return window(request, start, end, f"pp{told.n_prompt}+tg{told.n_gen}", detail)
        if told.n_prompt:
            said = sequence(request, start, end, end, told.n_prompt, 1, detail)
            return [_unseen(one) for one in said]
        return [
            Said("request_sent", start, request, {"name": f"tg{told.n_gen}"}),
            Said("token", start, request, {"index": 0, "count": 1, "visible": False}),
            Said("token", end, request, {"index": told.n_gen, "count": told.n_gen, "visible": False}),
            Said("request_end", end, request, {"detail": detail}),
        ]

    def finish(self) -> Sequence[Said]:
        return []


def _unseen(said: Said) -> Said:
    """The token that comes with a prompt's end is not sampled there."""
    return (
        Said(said.kind, said.at, said.request, {**said.values, "visible": False})
        if said.kind == "token"
        else said
    )


@dataclass
class Timings:
    """Reads ``slot print_timing`` of servers, ``llama_print_timings`` and ``llama_perf_context_print`` of sessions.

    A server's prompt and answer follow each other and end when it prints them, so that the phases are told. A session's
    are sums over all its prompts: one window, unless ``one_prompt``.
    """

    one_prompt: bool = False
    _task: str | None = None
    _at: At = NOW
    _told: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    _launched: set[str] = field(default_factory=set)
    _number: int = 0

    def take(self, text: str) -> Sequence[Said]:
        at = _stamped(text)
        if (launched := _LAUNCH.search(text)) is not None:
            self._launched.add(launched[1])
            return [Said("request_sent", at, launched[1], {"name": f"task {launched[1]}"})]
        if (slot := _SLOT.search(text)) is not None:
            if slot[1] != self._task:
                self._told.clear()
            self._task, self._at = slot[1], at
        if (found := _TIME.search(text)) is None:
            return []
        if self._task is None:
            self._at = at
        self._told[found["what"]] = float(found["ms"]), int(found["n"]) if found["n"] else None
        return self._complete() if found["what"] == "total" else []

    def _complete(self) -> Sequence[Said]:
        told, task = self._told, self._task
        self._told, self._task = {}, None
        if "prompt eval" not in told or "eval" not in told:
            return []
        (prompt_ms, prompt), (eval_ms, output) = told["prompt eval"], told["eval"]
        detail: dict[str, Any] = {f"{what.replace(' ', '_')}_ms": ms for what, (ms, _) in told.items()}
        if task is None and not self.one_prompt:
            self._number += 1
            detail |= {"prompt_tokens_processed": prompt, "eval_runs": output}
            return window(
                f"session {self._number}",
                self._before(told["total"][0]),
                self._at,
                "llama.cpp session",
                detail,
            )
        if task is None:
            self._number += 1
            output = output + 1 if output is not None else None  # runs: the first token came with the prompt
        start, first = self._before(prompt_ms + eval_ms), self._before(eval_ms)
        launched = task in self._launched
        self._launched.discard(task or "")
        return sequence(
            task or f"session {self._number}",
            start,
            first,
            self._at,
            prompt,
            output or 0,
            detail,
            sent=not launched,
        )

    def _before(self, ms: float) -> At:
        ns = -before_line(ms * 1e6).ns
        if self._at.base == "line":
            return At("line", -ns)
        return At(self._at.base, max(0, self._at.ns - ns), self._at.resolution_ns)

    def finish(self) -> Sequence[Said]:
        return []


def _stamped(text: str) -> At:
    if (found := _STAMP.match(text)) is None:
        return NOW
    minutes, seconds, ms, us = map(int, found.groups())
    ns = ((minutes * 60 + seconds) * 1000 + ms) * 1_000_000 + us * 1000
    return At("relative", ns, 1000) if ns < 1 << 62 else NOW

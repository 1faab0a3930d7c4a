"""MELT's ``event ns`` files: when each step of an app or of llama.cpp began and ended, in no order, by the device's wall clock.

    prompt.start 1712345678000000000        or, by the apps,        prefill.0.start,1712345678000000000

A name ends in ``.start`` or ``.end``. Its steps, numbers left out: ``load_model``, ``reload``; ``prompt``, ``prefill``, ``chat.prefill``;
``generate.decode``, ``chat.decode``; all others are phases of the name that they have. Phones' stamps are whole ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from melt_stream.collectors._log_said import At, Said, Unreadable

_LINE = re.compile(r"([A-Za-z_][\w.\-]{0,200})[ ,]\s*(\d{1,19})\s*")
_LOADS, _PREFILLS, _DECODES = ("load_model", "reload"), ("prompt", "prefill"), ("decode",)
LIMIT = 1 << 20
"""Events held back at most."""


@dataclass
class MeltEvents:
    """Holds all lines back until no more come: only then their order is known."""

    _ends: dict[str, dict[str, int]] = field(default_factory=dict)
    """By name and edge: when."""
    _marks: list[tuple[int, str]] = field(default_factory=list)
    _requests: int = 0

    def take(self, text: str) -> Sequence[Said]:
        if (found := _LINE.fullmatch(text)) is None:
            return []
        name, _, edge = found[1].rpartition(".")
        ns = int(found[2])
        if ns >= 1 << 62 or len(self._ends) + len(self._marks) >= LIMIT:
            raise Unreadable(f"expected ns since 1970, and at most {LIMIT} events, got {text[:120]!r}")
        if not name or edge not in ("start", "end"):
            self._marks.append((ns, found[1]))
            return []
        edges = self._ends.setdefault(name, {})
        if edge in edges:
            raise Unreadable(f"expected {found[1]} once, got it at {edges[edge]} and at {ns}")
        edges[edge] = ns
        return []

    def finish(self) -> Sequence[Said]:
        spans, marks = self._ends, self._marks
        self._ends, self._marks = {}, []
        said = [Said("mark", _at(ns), None, {"name": name}) for ns, name in marks]
        decodes = []
        prefills = []
        for name, edges in spans.items():
            words = [word for word in name.split(".") if not word.isdecimal()] or [name]
            start, end = edges.get("start"), edges.get("end")
            if start is not None and end is not None and end < start:
                said.append(Said("mark", _at(start), None, {"name": f"{name} ended before it began"}))
            elif words[-1] in _PREFILLS:
                prefills.append((start, end))
            elif words[-1] in _DECODES:
                decodes.append((start, end))
            else:
                what = "load" if words[0] in _LOADS and len(words) == 1 else "phase"
                said += _edges(what, name, start, end)
        return [*said, *self._generations(prefills, decodes)]

    def _generations(
        self, prefills: list[tuple[int | None, int | None]], decodes: list[tuple[int | None, int | None]]
    ) -> Iterator[Said]:
        """A prompt, and the decodes that ended before the next one began, are one request."""
        begun = sorted((start, end) for start, end in prefills if start is not None)
        ends = sorted(end for _, end in decodes if end is not None)
        missing = len(decodes) - len(ends)
        for k, (start, first) in enumerate(begun):
            until = begun[k + 1][0] if k + 1 < len(begun) else 1 << 62
            tokens = [end for end in ends if start < end <= until]
            yield from self._generation(start, first, tokens, missing)
        if not begun:
            yield from (Said("mark", _at(end), None, {"name": "decode.end"}) for end in ends)

    def _generation(self, start: int, first: int | None, tokens: list[int], missing: int) -> Iterator[Said]:
        self._requests += 1
        request = str(self._requests)
        yield Said("request_sent", _at(start), request)
        yield Said("prefill_start", _at(start), request)
        if first is not None:
            yield Said("token", _at(first), request, {"index": 0, "count": 1})
        for k, end in enumerate(tokens, first is not None):
            yield Said("token", _at(end), request, {"index": k, "count": 1})
        if tokens or first is not None:
            detail = {"runtime": "melt"} | ({"decodes_without_end": missing} if missing else {})
            yield Said(
                "request_end", _at(tokens[-1] if tokens else first or start), request, {"detail": detail}
            )


def _edges(what: str, name: str, start: int | None, end: int | None) -> Iterator[Said]:
    values = {"name": name}
    if start is not None:
        yield Said("load_start" if what == "load" else "phase_start", _at(start), None, values)
    if end is not None:
        yield Said("load_end" if what == "load" else "phase_end", _at(end), None, values)


def _at(ns: int) -> At:
    """A stamp of whole ms or us was taken by a clock that shows no more."""
    return At("realtime", ns, 1_000_000 if ns % 1_000_000 == 0 else 1000 if ns % 1000 == 0 else 1)

"""What runtimes counted themselves, prompt by prompt: llama.cpp's timings, MLC's statistics, as MELT's report reads them. Pure.

    llama_print_timings: prompt eval time =    2501.52 ms /    51 tokens (   49.05 ms per token,    20.39 tokens per second)
    llama_print_timings:        eval time =    1041.43 ms /    20 runs   (   52.07 ms per token,    19.20 tokens per second)

of which the last ones count where there are more than prompts; MLC's is a JSON object after a line that ends in ``/stats``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MOST = 100_000
"""Prompts of one file."""
_LINE = re.compile(
    r"llama_print_timings:\s*(prompt eval|eval) time =\s*([\d.]{1,20}) ms /\s*(\d{1,9}) (?:tokens|runs)\b"
    r"(?:.{0,40}?([\d.]{1,20}) tokens per second)?"
)
_ANSI = re.compile(r"\x1b(?:[@-Z\\-_]|\[[0-?]*[ -/]*[@-~])")
_NUMBER = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(tok|tok/s|s)?\s*")
_STATS_LINES = 16


class Stats(NamedTuple):
    """Of one prompt; None where nothing says."""

    input: int | None = None
    """Prompt tokens processed."""
    output: int | None = None
    """As the runtime counts: llama.cpp's evaluations of one token, which are one fewer than its tokens."""
    prefill_tps: float | None = None
    tps: float | None = None
    prefill_ns: int | None = None
    """How long the prompt took."""


def llama_timings(lines: Iterable[tuple[int, str]], prompts: int) -> list[Stats]:
    """Read a transcript; the last ``prompts`` groups of timings are those of the prompts."""
    found: list[Stats] = []
    for _, line in lines:
        if (match := _LINE.search(line)) is None:
            continue
        ms, count, rate = _float(match[2]), int(match[3]), _float(match[4])
        if match[1] == "prompt eval":
            found.append(
                Stats(input=count, prefill_tps=rate, prefill_ns=None if ms is None else round(ms * 1e6))
            )
        elif found and found[-1].output is None:
            found[-1] = found[-1]._replace(output=count, tps=rate)
        del found[: -min(max(prompts, 1), MOST)]
    return found if len(found) == prompts else []


def mlc_statistics(lines: Iterable[tuple[int, str]]) -> list[Stats]:
    """Read the answers to ``/stats`` of a transcript."""
    found: list[Stats] = []
    block: list[str] | None = None
    for _, raw in lines:
        line = _ANSI.sub("", raw).strip()
        if ": /stats" in line:
            block = []
        elif block is not None and line:
            block.append(line[:200])
            if (stats := _complete(block)) is not None:
                found.append(stats)
                block = None
            elif len(block) >= _STATS_LINES:
                block = None
        if len(found) >= MOST:
            break
    return found


def runtime_stats(value: object) -> Stats:
    """Read what MLC's apps keep of it: an object, or a text of one. Nothing where it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value[:10_000])
        except (ValueError, RecursionError):
            return Stats()
    if not isinstance(value, Mapping):
        return Stats()
    prefill, decode = (one if isinstance(one := value.get(n), Mapping) else {} for n in ("prefill", "decode"))
    return Stats(
        _count(prefill), _count(decode), _number(prefill.get("throughput")), _number(decode.get("throughput"))
    )


def _complete(block: list[str]) -> Stats | None:
    if not block[-1].endswith("}"):
        return None
    try:
        value = json.loads("".join(block))
    except (ValueError, RecursionError):
        return None
    return runtime_stats(value)


def _count(part: Mapping[str, Any]) -> int | None:
    tokens = _number(part.get("total tokens", part.get("total_tokens")))
    return None if tokens is None else int(tokens)


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 0 <= value < 1e9 else None
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else None


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None

"""ExecuTorch's ``PyTorchObserver`` line: the phases of one generation, in ms of the device's wall clock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, Field

from melt_stream.collectors._log_said import NS, At, Count, Said, Unreadable, read, sequence

_LINE = re.compile(r"PyTorchObserver\s*(\{.*\})")


class PyTorchObserver(BaseModel):
    """The fields of ``extension/llm/runner/stats.h``; a stamp of 0 was not taken."""

    prompt_tokens: Count
    generated_tokens: Count
    model_load_start_ms: NS = 0
    model_load_end_ms: NS = 0
    inference_start_ms: NS
    prompt_eval_end_ms: NS = 0
    first_token_ms: NS = 0
    inference_end_ms: NS
    aggregate_sampling_time_ms: Count = 0
    units_per_second: int = Field(1000, alias="SCALING_FACTOR_UNITS_PER_SECOND", gt=0, le=10**9)


@dataclass
class ExecuTorch:
    """Reads the lines of ``llama_main`` and of apps built on ExecuTorch's runner; all others say nothing."""

    _number: int = 0

    def take(self, text: str) -> Sequence[Said]:
        if (found := _LINE.search(text)) is None:
            return []
        told = read(PyTorchObserver, found[1])
        unit = 10**9 // told.units_per_second
        if max(told.inference_start_ms, told.inference_end_ms) * unit >= 1 << 62:
            raise Unreadable(f"expected stamps since 1970, got {told.inference_end_ms}")
        first = told.first_token_ms or told.prompt_eval_end_ms or told.inference_end_ms
        if not told.inference_start_ms <= first <= told.inference_end_ms:
            raise Unreadable(
                f"expected start <= first token <= end, got {told.inference_start_ms}, {first}, {told.inference_end_ms}"
            )
        self._number += 1
        load = (
            [Said("load_start", _at(told.model_load_start_ms, unit)), Said("load_end", _at(told.model_load_end_ms, unit))]
            if 0 < told.model_load_start_ms <= told.model_load_end_ms
            else []
        )  # fmt: skip
        start, middle, end = (_at(ms, unit) for ms in (told.inference_start_ms, first, told.inference_end_ms))
        detail = {"runtime": "executorch", "sampling_ms": told.aggregate_sampling_time_ms}
        return load + sequence(
            str(self._number), start, middle, end, told.prompt_tokens, told.generated_tokens, detail
        )

    def finish(self) -> Sequence[Said]:
        return []


def _at(count: int, unit: int) -> At:
    return At("realtime", count * unit, unit)

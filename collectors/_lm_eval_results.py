"""Figures in a result of lm-evaluation-harness: what its evaluator returns, and what its command line writes as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from melt_stream.collectors._accuracy import higher_is_better


def figures(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield columns of the stream ``accuracy``. Raises ``KeyError``, ``TypeError`` or ``AttributeError`` where it is no such result."""
    tool = f"lm-eval {told['lm_eval_version']}" if told.get("lm_eval_version") else "lm-eval"
    for task, values in told["results"].items():
        better = told.get("higher_is_better", {}).get(task, {})
        count = told.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not kind:
                continue
            error = values.get(f"{metric}_stderr,{kind}")
            yield {
                "task": task, "metric": metric if kind == "none" else f"{metric} ({kind})", "value": float(value),
                "stderr": float(error) if isinstance(error, int | float) else None, "samples": count,
                "higher_is_better": better.get(metric, higher_is_better(metric)), "tool": tool,
            }  # fmt: skip

"""Evaluates a model in a process of its own: ``python -m ..._evaluate_child JOB``, JOB being JSON.

Prints a JSON line for each figure (the columns of the stream ``accuracy``), ``{"begin": TASK}`` before and ``{"end": TASK}`` after each task, and
``{"error": ...}`` where the job cannot be done.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melt_stream.collectors._lm_eval_results import figures
from melt_stream.collectors._perplexity import perplexity
from melt_stream.collectors._scorer import Scorer


def main(job: dict[str, Any]) -> None:
    """Do the job."""
    say = _own_stdout()
    try:
        for line in _lines(job):
            say(line)
    except (ValueError, KeyError, OSError, ImportError) as exc:
        say({"error": f"{type(exc).__name__}: {exc}"})


def _own_stdout() -> Any:
    """Keep stdout for what we say: libraries print there too, and from now on to stderr."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        kept.write(json.dumps(line) + "\n")
        kept.flush()

    return say


def _lines(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    scorer = Scorer(Path(job["model"]), n_ctx=job["n_ctx"], threads=job["threads"])
    yield {"description": scorer.description}
    if text := job["text"]:
        name = Path(text).name
        yield {"begin": name}
        found = perplexity(scorer, Path(text).read_text(encoding="utf-8", errors="replace"), job["chunks"])
        tool = f"cyllama {importlib.metadata.version('cyllama')}, contexts of {job['n_ctx']}"
        yield {
            "task": name, "metric": "perplexity", "value": found.value, "stderr": found.stderr, "samples": found.samples,
            "higher_is_better": False, "tool": tool,
        }  # fmt: skip
        yield {"end": name}
    if job["tasks"]:
        yield from _harness(scorer, job)


def _harness(scorer: Scorer, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    from melt_stream.collectors._lm_eval_model import Gguf

    manager = TaskManager(include_path=job["include"] or None)
    for task in job["tasks"]:
        yield {"begin": task}
        told = evaluator.simple_evaluate(
            Gguf(scorer), tasks=[task], limit=job["limit"], num_fewshot=job["few_shots"], task_manager=manager, bootstrap_iters=0,
            log_samples=False, random_seed=job["seed"], numpy_random_seed=job["seed"], fewshot_random_seed=job["seed"],
        )  # fmt: skip
        yield from figures(told)
        yield {"end": task}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

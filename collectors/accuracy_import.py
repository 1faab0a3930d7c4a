"""Importers of accuracies that others found: results of lm-evaluation-harness, and MELT's own table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from melt_stream.collectors._accuracy import ACCURACY
from melt_stream.collectors._files import open_regular
from melt_stream.collectors._lm_eval_results import figures
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet

LIMIT = 256 << 20
MELT_COLUMNS = ["framework", "model", "dataset", "quantization", "accuracy", "std_err"]
Figure = dict[str, Any]


@dataclass
class LmEvalImport:
    """Read a result of lm-evaluation-harness, or a folder's ``results*.json``; each figure is a row of ``accuracy``. Raises ``DataError``."""

    path: str

    @staticmethod
    def example() -> dict[str, Any]:
        told = {"results": {"arc_easy": {"acc,none": 0.5}}, "model_name": "a/model"}
        return {"kind": "files", "tree": {"results_1.json": json.dumps(told)}}

    async def collect(self, out: Outlet) -> None:
        for path in _files(Path(self.path), "results*.json"):
            await _put(out, [*_from_harness(_text(path), path)])


@dataclass
class MeltAccuracyImport:
    """Read MELT's ``results.csv``, or a folder's; each line is a row of ``accuracy``, its standard error where it states one. Raises ``DataError``."""

    path: str

    @staticmethod
    def example() -> dict[str, Any]:
        line = "llamacpp,a-model,arc_easy,q4_0,0.5,None"
        return {"kind": "files", "tree": {"results.csv": ",".join(MELT_COLUMNS) + f"\n{line}\n"}}

    async def collect(self, out: Outlet) -> None:
        for path in _files(Path(self.path), "results.csv"):
            await _put(out, [*_from_melt(_text(path), path)])


async def _put(out: Outlet, rows: list[Figure]) -> None:
    for row in rows:
        await out.room()
        out.row(ACCURACY, tick=0, **row)
    await trio.lowlevel.checkpoint()


def _files(path: Path, pattern: str) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not (found := sorted(path.glob(pattern))):
        raise DataError(f"{path}: expected {pattern} in it, got none")
    return found


def _text(path: Path) -> str:
    with open_regular(path, LIMIT) as file:
        return file.read(LIMIT).decode("utf-8-sig", errors="replace")


def _from_harness(text: str, path: Path) -> Iterator[Figure]:
    try:
        told = json.loads(text)
        named = {"model": str(told.get("model_name") or ""), "framework": str(told.get("model_source") or "")}
        found = [*figures(told)]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(
            f"{path}: expected a result of lm-evaluation-harness, got {type(exc).__name__}: {exc}"
        ) from exc
    if not found:
        raise DataError(f"{path}: expected figures in its results, got none")
    for figure in found:
        yield {**named, **figure}


def _from_melt(text: str, path: Path) -> Iterator[Figure]:
    lines = csv.reader(text.splitlines())
    if (header := next(lines, None)) != MELT_COLUMNS:
        raise DataError(f"{path}: expected the columns {', '.join(MELT_COLUMNS)}, got {header}")
    for number, line in enumerate(lines, 2):
        try:
            framework, model, dataset, quantisation, accuracy, error = line
            value, stderr = _number(accuracy), _number(error)
        except ValueError as exc:
            raise DataError(
                f"{path}, line {number}: expected {len(MELT_COLUMNS)} fields with numbers, got {line!r:.120}"
            ) from exc
        yield {
            "framework": framework, "model": model, "quantisation": None if quantisation == "None" else quantisation, "task": dataset,
            "metric": "acc", "value": value, "stderr": stderr, "higher_is_better": True, "tool": "MELT results.csv",
        }  # fmt: skip


def _number(text: str) -> float | None:
    """What it does not say is unknown, never zero."""
    return None if text in ("None", "") else float(text)

"""A study's tables: as rows of plain values, as Arrow for files, and as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from melt_stream.analysis.catalogue import outcome_of, seconds_of
from melt_stream.analysis.compare.observed import ENERGY
from melt_stream.analysis.report.tables import Html, link, table
from melt_stream.analysis.study.gather import PER_CHARGE, Cell, Figure, Material
from melt_stream.analysis.study.pareto import front
from melt_stream.analysis.wording import NOTHING, number, percent

SHOWN = {
    "request.j_per_token": "J/output token", "prefill.j_per_token": "prefill J/token", "decode.j_per_token": "decode J/token",
    "request.j_per_request": "J/request", PER_CHARGE: "requests/charge",
    "decode.mean_w": "decode W", "prefill.tokens_per_s": "prefill tokens/s", "decode.tokens_per_s": "decode tokens/s",
    "request.ttft_s": "TTFT / s", "decode.itl_p50_s": "ITL p50 / s", "decode.itl_p95_s": "ITL p95 / s", "window.joules": "window J",
    "run.joules": "run J",
}  # fmt: skip
MIB = 1 << 20


def cells_html(of: Material, archive: str) -> str:
    """Every cell and device with its figures, which lead to the runs that they are of."""
    headers = [
        *of.axes,
        "device",
        "boundary",
        "runs",
        *SHOWN.values(),
        "of peak bandwidth",
        "stalls",
        "degenerate",
        "failed",
    ]
    rows = [_cell_row(of, cell, archive) for cell in of.cells]
    return table(
        "Cells: typical value over repetitions, and its 95 % interval; the numbers of its runs lead to their reports",
        headers,
        rows,
    )


def _runs(cell: Cell, archive: str) -> str:
    """Links to a cell's runs, by their repetition."""
    if cell.side is None:
        return NOTHING
    return Html(
        " ".join(_link(archive, run.id, run.manifest.study.get("repetition")) for run in cell.side.runs)
    )


def _link(archive: str, run: str, words: object) -> Html:
    return link(f"{archive}{run}/report.html", words)


def _cell_row(of: Material, cell: Cell, archive: str) -> list[object]:
    said = cell.experience
    return [
        *(cell.points.get(axis, NOTHING) for axis in of.axes), cell.device or NOTHING, cell.where or NOTHING, _runs(cell, archive),
        *(text(cell.figures.get(metric)) for metric in SHOWN),
        percent(said.get("memory_bound")), NOTHING if said.get("stalls") is None else said["stalls"],
        NOTHING if said.get("degenerate") is None else percent(said["degenerate"]), ", ".join(cell.failures) or NOTHING,
    ]  # fmt: skip


def models_html(of: Material) -> str:
    """Quantisation, size, memory, accuracy and energy of each model and device; empty where no model is of the zoo and nothing was evaluated."""
    tasks = list(dict.fromkeys(task for cell in of.cells for task in cell.accuracy))
    known = [cell for cell in of.cells if cell.model or cell.accuracy]
    if not known:
        return ""
    headers = [
        *of.axes,
        "device",
        "quantisation",
        "bits/weight",
        "file / MiB",
        "peak RSS / MiB",
        *tasks,
        "J/output token",
        "on the front",
    ]
    best = pareto(of, tasks)
    rows = [
        [*(cell.points.get(axis, NOTHING) for axis in of.axes), cell.device or NOTHING, cell.model.get("quantisation") or NOTHING,
         number(cell.model.get("bits_per_weight")), _mib(cell.model.get("bytes")), _mib(cell.experience.get("peak_rss")),
         *(text(cell.accuracy.get(task)) for task in tasks), text(cell.figures.get("request.j_per_token")), best.get(id(cell), NOTHING)]
        for cell in known
    ]  # fmt: skip
    return table("Models: size, accuracy and energy", headers, rows)


def pareto(of: Material, tasks: Sequence[str]) -> dict[int, str]:
    """By the cell's identity: for which tasks no cell of its device is as accurate, as cheap and as small, and better in one."""
    found: dict[int, list[str]] = {}
    for device in {cell.device for cell in of.cells}:
        mine = [cell for cell in of.cells if cell.device == device]
        for task in tasks:
            up = next((cell.accuracy_up[task] for cell in mine if task in cell.accuracy_up), True)
            best = front([point(cell, task) for cell in mine], [up, False, False])
            for cell, is_best in zip(mine, best, strict=True):
                if is_best:
                    found.setdefault(id(cell), []).append(task)
    return {key: ", ".join(names) for key, names in found.items()}


def point(cell: Cell, task: str) -> tuple[float | None, float | None, float | None]:
    """Return accuracy, J/token and bytes: of memory where it was watched, else of the file."""
    accuracy, energy = cell.accuracy.get(task), cell.figures.get("request.j_per_token")
    size = cell.experience.get("peak_rss") or cell.model.get("bytes")
    return (accuracy.value if accuracy else None), (energy.value if energy else None), size


def matrix_html(of: Material, metric: str = "request.j_per_token") -> str:
    """One metric by device (and what else varies) and the axis with the most points; empty where there is nothing to cross."""
    if not of.axes or not any(metric in cell.figures for cell in of.cells):
        return ""
    across = max(of.axes, key=lambda axis: len({cell.points.get(axis) for cell in of.cells}))
    rest = [axis for axis in of.axes if axis != across]
    columns = list(dict.fromkeys(cell.points.get(across, NOTHING) for cell in of.cells))
    rows: dict[str, dict[str, Cell]] = {}
    for cell in of.cells:
        name = " ".join(
            [cell.device or NOTHING, *(f"{axis}={cell.points[axis]}" for axis in rest if axis in cell.points)]
        )
        rows.setdefault(name, {})[cell.points.get(across, NOTHING)] = cell
    body = [
        [name, *(text(mine[c].figures.get(metric)) if c in mine else NOTHING for c in columns)]
        for name, mine in rows.items()
    ]
    return table(f"{SHOWN[metric]} by {across}", ["", *columns], body)


def runs_html(of: Material, archive: str) -> str:
    """Every run, with a link to its own report."""
    headers = ("run", "cell", "repetition", "attempt", "what became of it", "length / s")
    body = []
    for entry in of.runs:
        said = entry["study"]
        kind = " (warm-up)" if said.get("warmup") else ""
        outcome = outcome_of(entry) + (f": {said['failure']}" if said.get("failure") else "")
        label = " ".join(f"{a}={p}" for a, p in said.get("points", {}).items())
        body.append(
            [
                _link(archive, entry["id"], entry["id"]),
                label,
                f"{said.get('repetition')}{kind}",
                said.get("attempt"),
                outcome,
                number(seconds_of(entry)),
            ]
        )
    return table("Every run; each name leads to its own report", headers, body)


def text(figure: Figure | None) -> str:
    """``12.3 [12.1, 12.5]``."""
    if figure is None:
        return NOTHING
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return number(figure.value)
    return f"{number(figure.value)} [{number(figure.low)}, {number(figure.high)}]"


def _mib(size: float | None) -> str:
    return number(None if size is None else size / MIB)


def as_arrow(of: Material) -> dict[str, pa.Table]:
    """Return the tables ``cells`` (a row a cell, device and metric) and ``runs``, for files."""
    return {
        "cells": pa.Table.from_pylist(list(_flat(of))),
        "runs": pa.Table.from_pylist([_run(entry) for entry in of.runs]),
    }


def _flat(of: Material) -> Iterator[dict[str, Any]]:
    for cell in of.cells:
        about = {axis: cell.points.get(axis) for axis in of.axes} | {
            "cell": cell.id, "device": cell.device, "boundary": cell.where, "quantisation": cell.model.get("quantisation"),
            "bits_per_weight": cell.model.get("bits_per_weight"), "model_bytes": cell.model.get("bytes"),
            "sha256": cell.model.get("sha256"), "peak_rss": cell.experience.get("peak_rss"), "memory_bound": cell.experience.get("memory_bound"),
        }  # fmt: skip
        kinds: list[tuple[str, dict[str, Figure], Callable[[str], bool]]] = [
            ("metric", cell.figures, lambda name: name.rpartition(".")[2] in ENERGY), ("accuracy", cell.accuracy, lambda _: False),
        ]  # fmt: skip
        for kind, figures, is_energy in kinds:
            for name, figure in figures.items():
                yield about | {
                    "kind": kind, "metric": name, "value": figure.value, "low": figure.low, "high": figure.high, "runs": figure.count,
                    "is_energy": is_energy(name),
                }  # fmt: skip


def _run(entry: dict[str, Any]) -> dict[str, Any]:
    said = entry["study"]
    return {
        "run": entry["id"], "cell": entry["cell"], **{f"axis_{a}": p for a, p in said.get("points", {}).items()},
        "repetition": said.get("repetition"), "attempt": said.get("attempt"), "warmup": said.get("warmup"),
        "outcome": outcome_of(entry), "failure": said.get("failure"), "seconds": seconds_of(entry),
    }  # fmt: skip

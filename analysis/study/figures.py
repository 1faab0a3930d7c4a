"""A study's plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from melt_stream.analysis.report.figures import COLOURS, Panel, array, layout_of, literal
from melt_stream.analysis.study.gather import Cell, Figure, Material
from melt_stream.analysis.study.tables import pareto, point

PHASES = (("prefill", "--line-5"), ("decode", "--line-0"))
MOST_LINES = 60


def panels(of: Material) -> Iterator[Panel]:
    """Yield what there is to draw."""
    yield from filter(None, [_energy(of), _speed(of), _sustained(of)])
    tasks = list(dict.fromkeys(task for cell in of.cells for task in cell.accuracy))
    for number, task in enumerate(tasks):
        if panel := _pareto(of, task, number, tasks):
            yield panel


def _energy(of: Material) -> Panel | None:
    """Joules of prefill and decode in a run of each cell, with intervals."""
    cells = [cell for cell in of.cells if any(f"{phase}.joules" in cell.figures for phase, _ in PHASES)]
    if not cells:
        return None
    names = [_name(of, cell) for cell in cells]
    data = [
        {
            "type": "bar", "name": phase, "x": names, "marker": {"color": colour},
            **_values([cell.figures.get(f"{phase}.joules") for cell in cells]),
            "hovertemplate": "%{y:.4~s}J",
        }
        for phase, colour in PHASES
    ]  # fmt: skip
    words = "; ".join(dict.fromkeys(cell.where for cell in cells if cell.where))
    return _panel("energy", f"Energy of a run by phase ({words})", "energy / J", data, barmode="group")


def _speed(of: Material) -> Panel | None:
    cells = [cell for cell in of.cells if "decode.tokens_per_s" in cell.figures]
    if not cells:
        return None
    bars = {
        "type": "bar", "name": "decode", "x": [_name(of, cell) for cell in cells], "marker": {"color": "--line-0"},
        **_values([cell.figures.get("decode.tokens_per_s") for cell in cells]), "hovertemplate": "%{y:.4~s} tokens/s",
    }  # fmt: skip
    return _panel("speed", "Decode speed", "tokens/s", [bars])


def _sustained(of: Material) -> Panel | None:
    """Speed of each request over the time of its run; a line a run."""
    cells = {run.id: cell for cell in of.cells if cell.side for run in cell.side.runs}
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in of.sustained:
        if row["decode_tokens_per_s"] is not None and row["run"] in cells:
            lines.setdefault((row["run"], row["device"]), []).append(row)
    long = {key: rows for key, rows in lines.items() if len(rows) > 1}
    if not long:
        return None
    labels = list(dict.fromkeys(_name(of, cells[run]) for run, _ in long))
    shown, data = set[str](), []
    for (run, _), rows in list(long.items())[:MOST_LINES]:
        label = _name(of, cells[run])
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": label, "legendgroup": label, "showlegend": label not in shown,
            "x": array([row["start_s"] for row in rows]), "y": array([row["decode_tokens_per_s"] for row in rows]),
            "line": {"color": f"--line-{labels.index(label) % COLOURS}", "width": 1},
        })  # fmt: skip
        shown.add(label)
    more = f" (of {len(long)} runs, the first {MOST_LINES})" if len(long) > MOST_LINES else ""
    panel = _panel("sustained", f"Decode speed of each request over its run{more}", "tokens/s", data)
    panel.figure["layout"]["xaxis"]["title"] = {"text": "time since the start of the run / s"}
    panel.figure["layout"]["hovermode"] = "closest"
    return panel


def _pareto(of: Material, task: str, number: int, tasks: Sequence[str]) -> Panel | None:
    cells = [cell for cell in of.cells if None not in point(cell, task)[:2]]
    if not cells:
        return None
    best = pareto(of, tasks)
    sizes = [point(cell, task)[2] for cell in cells]
    largest = max((size for size in sizes if size), default=1.0)
    data = []
    for on_front, words, symbol in ((True, "on the front", "circle"), (False, "beaten", "circle-open")):
        mine = [
            (cell, size)
            for cell, size in zip(cells, sizes, strict=True)
            if (task in best.get(id(cell), "").split(", ")) == on_front
        ]
        data.append({
            "type": "scatter", "mode": "markers+text", "name": words, "text": [_name(of, cell) for cell, _ in mine], "textposition": "top center",
            "x": array([cell.figures["request.j_per_token"].value for cell, _ in mine]),
            "y": array([cell.accuracy[task].value for cell, _ in mine]),
            "error_x": _error([cell.figures["request.j_per_token"] for cell, _ in mine]),
            "error_y": _error([cell.accuracy[task] for cell, _ in mine]),
            "marker": {"color": "--line-0", "symbol": symbol, "size": [8 + 22 * ((size or 0) / largest) ** 0.5 for _, size in mine]},
        })  # fmt: skip
    panel = _panel(f"pareto-{number}", f"{task} against energy", task, data, height=420)
    panel.figure["layout"]["xaxis"]["title"] = {"text": "energy / J per output token"}
    panel.figure["layout"]["hovermode"] = "closest"
    return panel


def _panel(
    id_: str, title: str, y: str, data: list[dict[str, Any]], *, height: int = 320, **layout: Any
) -> Panel:
    made = {**layout_of(None), **layout}
    made["yaxis"] = {
        "title": {"text": literal(y)},
        "gridcolor": "--grid",
        "zerolinecolor": "--axis",
        "rangemode": "tozero",
    }
    return Panel(id_, title, f"{title}, {y}.", {"data": data, "layout": made}, height, linked=False)


def _name(of: Material, cell: Cell) -> str:
    devices = {one.device for one in of.cells}
    words = [
        *cell.points.values(),
        *([cell.device] if len(devices) > 1 and cell.device not in cell.points.values() else []),
    ]
    return literal(" ".join(word for word in words if word)) or literal(cell.device or "the only cell")


def _values(figures: Sequence[Figure | None]) -> dict[str, Any]:
    return {"y": array([float("nan") if f is None else f.value for f in figures]), "error_y": _error(figures)}


def _error(figures: Sequence[Figure | None]) -> dict[str, Any]:
    """How far the intervals reach; nothing where an end is not known."""
    up = [f.high - f.value if f and f.high is not None else float("nan") for f in figures]
    down = [f.value - f.low if f and f.low is not None else float("nan") for f in figures]
    return {
        "type": "data",
        "symmetric": False,
        "array": array(up),
        "arrayminus": array(down),
        "color": "--axis",
    }

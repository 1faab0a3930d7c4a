"""The plot of power: every rail of a device over its phases, and below them the requests with their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.phase_rows import ORDER
from melt_stream.analysis.report.figures import (
    Figure,
    Panel,
    array,
    hatched,
    layout_of,
    line,
    literal,
    rectangles,
)
from melt_stream.analysis.report.series import Series, lanes, union
from melt_stream.analysis.wording import measured

PATTERNS = {
    "baseline": "", "load": "\\", "warmup": "+", "queue": ".", "prefill": "/", "decode": "", "window": "",
    "marker": "+", "other": "|", "tail": "-",
}  # fmt: skip
"""Beside its colour each phase has a pattern, for print and for eyes that do not tell the colours apart."""
TICKS = 6000
"""Token ticks drawn at most; where there are more, one stands for several."""
HOVERED_TICKS = 3000
BAND = 0.6
LANES = 12
"""Lanes of requests drawn beside each other; a request beyond them shares the last one."""
LABELLED = 40


def power(device: str, series: Sequence[Series], phases: pa.Table, tokens: pa.Table, end_s: float) -> Panel:
    """Power of every rail of a device over its phases as bands; below them, requests in lanes with their tokens."""
    rows = [p for p in phases.to_pylist() if p["phase"] != "idle"]
    lane_of, labels = _lanes(rows)
    count = max(lane_of.values(), default=-1) + 1
    strip = 24 * count + 8 if count else 0
    height = 380 + strip
    split = strip / (height - 110)
    data = [*_bands(rows, end_s), *hatched(series)]
    data += [line(s, i, ("x", "y2")) for i, s in enumerate(series)]
    data += _boxes(rows, lane_of)
    data += _ticks(tokens, lane_of)
    data += _labels(labels)
    layout = {**layout_of(end_s), "showlegend": True}  # also of one line: it says whether that is estimated
    above = [split + 0.03 if count else 0, 1]
    layout["yaxis"] = {"domain": above, "range": [0, 1], "visible": False, "fixedrange": True}
    layout["yaxis2"] = {
        "domain": above, "overlaying": "y", "side": "left", "tickmode": "auto", "title": {"text": "power / W"}, "rangemode": "tozero",
        "showgrid": True, "gridcolor": "--grid", "zerolinecolor": "--axis",
    }  # fmt: skip
    if count:
        layout["yaxis3"] = {
            "domain": [0, split], "range": [count, -0.35], "fixedrange": True, "showticklabels": False,
            "showgrid": False, "zeroline": False, "title": {"text": "requests" if count > 1 else ""},
        }  # fmt: skip
        layout["xaxis"]["anchor"] = "y3"
    rails = ", ".join(s.name + (" (estimated)" if s.estimated else "") for s in series) or "no rail"
    describe = f"Power over time of {device}: {rails}; phases as bands, requests and tokens below."
    return Panel(f"power-{device}", f"Power of {device}", describe, {"data": data, "layout": layout}, height)


def _filled(phase: str, boxes: list[tuple[float, float, float, float]], strength: str) -> Figure:
    fill: Figure = {"fillcolor": f"--{phase}-{strength}"}
    if PATTERNS[phase]:
        fill["fillpattern"] = {
            "shape": PATTERNS[phase], "size": 7, "solidity": 0.18, "bgcolor": f"--{phase}-{strength}",
            "fgcolor": f"--{phase}-ink",
        }  # fmt: skip
    return {
        "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip",
        "legendgroup": phase, "name": phase, **fill, **rectangles(boxes),
    }  # fmt: skip


def _kind(row: Mapping[str, Any]) -> str:
    return row["phase"] if row["phase"] in PATTERNS else "other"


def _bands(rows: Sequence[Mapping[str, Any]], end_s: float) -> list[Figure]:
    """One trace for each kind of phase, so that a click on its legend hides all of it."""
    traces = []
    for phase in (p for p in ORDER if p in PATTERNS):
        mine = [(r["start_ns"], r["stop_ns"]) for r in rows if _kind(r) == phase]
        if not mine:
            continue
        starts, stops = np.array(mine, np.int64).T
        start, stop = union(starts, stops, nearer_than=end_s * 1e9 / 4000)
        boxes = [(a / 1e9, b / 1e9, 0.0, 1.0) for a, b in zip(start, stop, strict=True)]
        traces.append({**_filled(phase, boxes, "band"), "yaxis": "y"})
    return traces


def _lanes(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[Any, int], list[tuple[float, int, str]]]:
    """The lane of each request, and of each phase that belongs to none (by its place in ``rows``)."""
    spans: dict[Any, list[int]] = {}
    names: dict[Any, str] = {}
    for i, row in enumerate(rows):
        of = row["request"] if row["request"] is not None else (i,)
        span = spans.setdefault(of, [row["start_ns"], row["stop_ns"]])
        span[:] = min(span[0], row["start_ns"]), max(span[1], row["stop_ns"])
        names[of] = f"request {of}" if row["request"] is not None else row["name"] or row["phase"]
    if not spans:
        return {}, []
    start, stop = np.array(list(spans.values()), np.int64).T
    lane = np.minimum(lanes(start, stop), LANES - 1)
    lane_of = dict(zip(spans, lane.tolist(), strict=True))
    labels = [(spans[of][0] / 1e9, lane_of[of], names[of]) for of in spans]
    return lane_of, labels if len(labels) <= LABELLED else []


def _boxes(rows: Sequence[Mapping[str, Any]], lane_of: Mapping[Any, int]) -> list[Figure]:
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    for i, row in enumerate(rows):
        lane = lane_of[row["request"] if row["request"] is not None else (i,)]
        span = (row["start_ns"] / 1e9, row["stop_ns"] / 1e9, lane, lane + BAND)
        boxes.setdefault(_kind(row), []).append(span)
    return [
        {**_filled(phase, mine, "box"), "xaxis": "x", "yaxis": "y3", "showlegend": False}
        for phase, mine in boxes.items()
    ]


def _ticks(tokens: pa.Table, lane_of: Mapping[Any, int]) -> list[Figure]:
    """A tick at the end of each token, in its request's lane."""
    every = max(-(-len(tokens) // TICKS), 1)
    some = tokens.select(["request", "index", "stop_ns", "text", "joules", "joules_u"])
    rows = some.take(np.arange(0, len(some), every)).to_pylist()
    shown = [r for r in rows if r["request"] in lane_of and r["stop_ns"] is not None]
    if not shown:
        return []
    x = [v for r in shown for v in (r["stop_ns"] / 1e9, r["stop_ns"] / 1e9, np.nan)]
    y = [v for r in shown for v in (lane_of[r["request"]], lane_of[r["request"]] + BAND, np.nan)]
    trace: Figure = {
        "type": "scatter", "mode": "lines", "name": "token" if every == 1 else f"every {every}th token",
        "x": array(x), "y": array(y, "f4"), "yaxis": "y3", "line": {"width": 1, "color": "--tick"},
    }  # fmt: skip
    if len(shown) > HOVERED_TICKS:
        return [{**trace, "hoverinfo": "skip"}]
    words = [w for r in shown for w in (*[_token_words(r)] * 2, "")]
    return [{**trace, "text": words, "hovertemplate": "%{text}<extra></extra>"}]


def _token_words(row: Mapping[str, Any]) -> str:
    text = "" if row["text"] is None else f" “{literal(row['text'])}”"
    energy = "" if row["joules"] is None else f", {measured(row['joules'], row['joules_u'])} J"
    return f"request {row['request']}, token {row['index']}{text}{energy}"


def _labels(labels: Sequence[tuple[float, int, str]]) -> list[Figure]:
    if not labels:
        return []
    return [{
        "type": "scatter", "mode": "text", "x": [t for t, _, _ in labels], "y": [lane for _, lane, _ in labels],
        "text": [literal(name) for _, _, name in labels], "textposition": "top right", "yaxis": "y3",
        "textfont": {"size": 10, "color": "--muted"}, "hoverinfo": "skip", "showlegend": False, "cliponaxis": False,
    }]  # fmt: skip

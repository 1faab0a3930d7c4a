"""The plot of energy per output token: with few requests each with its uncertainty, with many their spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from melt_stream.analysis.phase_rows import ENOUGH
from melt_stream.analysis.report.figures import (
    COLOURS,
    ESTIMATED_DASH,
    Figure,
    Panel,
    array,
    layout_of,
    literal,
)
from melt_stream.analysis.report.series import Floats, thin
from melt_stream.analysis.wording import measured

REQUEST_LINES = 6
"""Requests drawn as a line each; more are summed up by their spread."""
LONG = 2000
"""Tokens of a request that are drawn each; more are thinned out."""


def energy_per_token(tokens: pa.Table, end_label: str) -> Panel | None:
    """Energy of each output token; with few requests a line and its uncertainty each, with many their spread."""
    rows = _token_energy(tokens)
    if not rows:
        return None
    few = len(rows) <= REQUEST_LINES
    data = (
        [trace for i, item in enumerate(rows.items()) for trace in _with_u(i, *item)]
        if few
        else _spread(rows)
    )
    layout = layout_of(None)
    layout["xaxis"]["title"] = {"text": "output token"}
    layout["yaxis"] = {
        "title": {"text": f"J/token ({literal(end_label)})"}, "gridcolor": "--grid", "zerolinecolor": "--axis",
        "rangemode": "tozero",
    }  # fmt: skip
    layout["hovermode"] = "x unified" if few else "x"
    describe = f"Energy per output token ({end_label}), with its standard uncertainty."
    return Panel("tokens", "Energy per token", describe, {"data": data, "layout": layout}, 320, linked=False)


def _token_energy(tokens: pa.Table) -> dict[int, tuple[Floats, Floats, Floats, bool]]:
    """By request: index, J per token, its uncertainty, NaN where samples do not cover it.

    Token 0 is left out: it has no joules of its own.
    """
    columns = ["request", "index", "coverage", "joules", "joules_u"]
    request, index, coverage, joules, u = (
        tokens[c].to_numpy(zero_copy_only=False).astype(np.float64) for c in columns
    )
    estimated = np.array([bool(e) for e in tokens["estimated"].to_pylist()], bool)
    share = np.where(coverage >= ENOUGH, coverage, np.nan)
    order = np.lexsort((index, request))
    order = order[index[order] > 0]
    found = {}
    for mine in np.split(order, np.flatnonzero(np.diff(request[order])) + 1):
        each = joules[mine] / share[mine]
        if np.isfinite(each).any():
            number = int(request[mine[0]])
            found[number] = index[mine], each, u[mine] / share[mine], bool(estimated[mine].any())
    return found


def _with_u(number: int, request: int, row: tuple[Floats, Floats, Floats, bool]) -> list[Figure]:
    index, joules, u, estimated = row
    name = f"request {request}" + (" (estimated)" if estimated else "")
    if len(index) > LONG:
        x, y, _ = thin(index.astype(np.int64), joules, None)
        x = x * 1e9
        band: list[Figure] = []
    else:
        x, y = index, joules
        around, edge = _outline(x, y - u, y + u)
        band = [{
            "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip",
            "fillcolor": f"--u-{number % COLOURS}", "x": array(around), "y": array(edge, "f4"), "showlegend": False,
            "legendgroup": name,
        }]  # fmt: skip
    symbols = ("circle", "square", "diamond", "cross", "triangle-up", "x")
    text = [f"{measured(a, b)} J" for a, b in zip(joules, u, strict=True)] if len(x) == len(joules) else None
    return [*band, {
        "type": "scatter", "mode": "lines+markers" if len(x) <= 400 else "lines", "name": name, "legendgroup": name,
        "x": array(x), "y": array(y, "f4"), "line": {"color": f"--line-{number % COLOURS}", "width": 1.4,
        "dash": ESTIMATED_DASH if estimated else "solid"}, "marker": {"symbol": symbols[number % 6], "size": 5},
        **({"text": text, "hovertemplate": "%{text}"} if text else {"hovertemplate": "%{y:.4~s}J"}),
    }]  # fmt: skip


def _outline(x: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """There along the upper edge and back along the lower one, for each stretch without a NaN."""
    known = np.isfinite(low) & np.isfinite(high)
    stretches = np.split(np.arange(len(x)), np.flatnonzero(np.diff(known)) + 1)
    around: list[Floats] = []
    edge: list[Floats] = []
    for part in (p for p in stretches if len(p) and known[p[0]]):
        around += [x[part], x[part][::-1], np.array([np.nan])]
        edge += [high[part], low[part][::-1], np.array([np.nan])]
    return np.concatenate([*around, np.empty(0)]), np.concatenate([*edge, np.empty(0)])


def _spread(rows: Mapping[int, tuple[Floats, Floats, Floats, bool]]) -> list[Figure]:
    """Median and the middle 80 % over requests, at each token's index."""
    index = np.concatenate([r[0] for r in rows.values()]).astype(np.int64)
    joules = np.concatenate([r[1] for r in rows.values()])
    index, joules = index[np.isfinite(joules)], joules[np.isfinite(joules)]
    order = np.argsort(index, kind="stable")
    x, first = np.unique(index[order], return_index=True)
    low, middle, high = np.array(
        [np.quantile(part, [0.1, 0.5, 0.9]) for part in np.split(joules[order], first[1:])]
    ).T
    words = " (estimated)" if any(r[3] for r in rows.values()) else ""
    band = {
        "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip",
        "fillcolor": "--u-0", "name": f"middle 80 % of {len(rows)} requests{words}",
        "x": array(np.concatenate([x, x[::-1]])), "y": array(np.concatenate([high, low[::-1]]), "f4"),
    }  # fmt: skip
    median = {
        "type": "scatter", "mode": "lines", "name": f"median of {len(rows)} requests{words}", "x": array(x),
        "y": array(middle, "f4"), "line": {"color": "--line-0", "width": 1.6}, "hovertemplate": "%{y:.4~s}J",
    }  # fmt: skip
    return [band, median]

"""Plotly figures as plain dictionaries: what all of them share, and the plots of other streams.

A colour is the name of a CSS variable, which the page's script looks up, so that a plot follows the theme.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from melt_stream.analysis.report.series import Series, union
from melt_stream.analysis.wording import seconds

UNITS = {"Cel": "°C", "By": "B", "Ohm": "Ω", "1": "ratio"}
"""UCUM codes that people write otherwise."""
COLOURS = 7
DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot")
ESTIMATED_DASH = "dot"

Figure = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """One figure, with its heading and its words for who cannot see it."""

    id: str
    title: str
    describe: str
    figure: Figure
    height: int
    linked: bool = True
    """True where its x axis is the run's time."""


def literal(text: str) -> str:
    """``text`` for plotly, which reads some HTML: as it is, with line breaks made visible."""
    return html.escape(text.replace("\n", "\N{RETURN SYMBOL}"), quote=False)


def array(values: Iterable[float] | np.ndarray, kind: str = "f8") -> dict[str, str]:
    """Numbers as plotly reads them fastest: base64 of little-endian floats, NaN included."""
    raw = np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()
    return {"dtype": kind, "bdata": base64.b64encode(raw).decode("ascii")}


def line(series: Series, number: int, axes: tuple[str, str] = ("x", "y")) -> Figure:
    """One series as a line; the account's rail is thicker, an estimated one dotted and called so."""
    words = " (estimated)" if series.estimated else ""
    dash = ESTIMATED_DASH if series.estimated else DASHES[number // COLOURS % len(DASHES)]
    return {
        "type": "scatter",
        "mode": "lines" if len(series.t_s) > 1 else "markers",
        "name": literal(series.name) + words,
        "x": array(series.t_s),
        "y": array(series.values, "f4"),
        "xaxis": axes[0],
        "yaxis": axes[1],
        "connectgaps": False,
        "line": {
            "color": f"--line-{number % COLOURS}",
            "width": 1.8 if series.account else 1.2,
            "dash": dash,
            "shape": "vh" if series.step else "linear",
        },
        "hovertemplate": _number(series.unit),
    }


def _number(unit: str) -> str:
    """How plotly writes a value: 5.1mW, 2.2GB, but 41.3 °C."""
    words = literal(UNITS.get(unit, unit))
    if unit == "1":
        return "%{y:.4~r}"
    return f"%{{y:.4~r}} {words}" if unit in ("%", "Cel") else f"%{{y:.4~s}}{words}"


def stream(key: str, title: str, unit: str, series: Sequence[Series], end_s: float) -> Panel:
    """Columns of one stream that share a unit, over the same time as power."""
    layout = layout_of(end_s)
    shown = UNITS.get(unit, unit)
    layout["yaxis"] = {
        "title": {"text": literal(shown)}, "gridcolor": "--grid", "zerolinecolor": "--axis", "exponentformat": "SI",
    }  # fmt: skip
    layout["showlegend"] = len(series) > 1
    data = [*hatched(series, _heights(series)), *(line(s, i) for i, s in enumerate(series))]
    return Panel(key, title, f"{title} over time, in {shown}.", {"data": data, "layout": layout}, 190)


def layout_of(end_s: float | None) -> Figure:
    """What the plots have in common; over the run's time where ``end_s`` says how long it was."""
    x: Figure = {
        "gridcolor": "--grid",
        "zeroline": False,
        "linecolor": "--axis",
        "showline": True,
        "ticks": "outside",
    }
    if end_s is not None:
        x |= {
            "range": [0, end_s], "title": {"text": "time since the start of the run / s", "standoff": 6},
            "showspikes": True, "spikemode": "across", "spikesnap": "hovered data", "spikethickness": 1,
            "spikecolor": "--axis", "spikedash": "dot", "hoverformat": ".4f",
        }  # fmt: skip
    return {
        "xaxis": x,
        "margin": {"l": 62, "r": 12, "t": 8, "b": 44},
        "paper_bgcolor": "--page",
        "plot_bgcolor": "--page",
        "font": {"color": "--text", "family": "system-ui, sans-serif", "size": 12},
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": "--raised",
            "bordercolor": "--axis",
            "font": {"color": "--text", "size": 12},
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "dragmode": "zoom",
        "uirevision": "kept",
    }


def rectangles(boxes: Iterable[tuple[float, float, float, float]]) -> Figure:
    """x0, x1, y0, y1 of each, as one outline that is lifted between them."""
    x = [v for x0, x1, _, _ in boxes for v in (x0, x0, x1, x1, np.nan)]
    y = [v for _, _, y0, y1 in boxes for v in (y0, y1, y1, y0, np.nan)]
    return {"x": array(x), "y": array(y, "f4")}


def hatched(series: Sequence[Series], heights: tuple[float, float] = (0.0, 1.0)) -> list[Figure]:
    """Grey, cross-hatched regions where a drawn line has no samples."""
    gaps = np.concatenate([s.gaps for s in series]) if series else np.empty((0, 2), np.int64)
    if not len(gaps):
        return []
    start, stop = union(gaps[:, 0], gaps[:, 1])
    boxes = [(a / 1e9, b / 1e9, *heights) for a, b in zip(start, stop, strict=True)]
    pattern = {"shape": "x", "size": 6, "solidity": 0.25, "bgcolor": "--gap-band", "fgcolor": "--gap-ink"}
    return [{
        "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip",
        "name": "gap: no samples", "fillcolor": "--gap-band", "fillpattern": pattern, "yaxis": "y", **rectangles(boxes),
    }]  # fmt: skip


def _heights(series: Sequence[Series]) -> tuple[float, float]:
    known = np.concatenate([s.values for s in series])
    return float(np.nanmin(known)), float(np.nanmax(known))


def spoken(series: Sequence[Series]) -> str:
    """How many samples each point stands for, in a sentence; empty where every sample is drawn."""
    thinned = [s for s in series if s.samples_per_point > 1.5]
    if not thinned:
        return ""
    most = max(s.samples_per_point for s in thinned)
    total = sum(s.samples for s in thinned)
    return (
        f"Thinned out: a point stands for up to {most:,.0f} samples ({total:,} in all). Each bin of time keeps its "
        f"lowest and highest sample (a bin is {seconds(_bin(thinned))} wide)."
    )


def _bin(series: Sequence[Series]) -> float:
    longest = max(float(s.t_s[-1] - s.t_s[0]) for s in series)
    return longest / 2000

"""The plots of clocks: for each what its readings leave for the truth, beside the map that was made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.report.figures import Figure, Panel, array, layout_of, literal, rectangles
from melt_stream.analysis.report.series import Floats
from melt_stream.analysis.wording import count, measured, seconds

CLOCKS = 8
"""Clocks that are drawn, the devices' before the host's own."""
DRAWN = 1200
"""Readings of one kind drawn at most; of more, the one that says most in each stretch of time."""
DRAWN_KINDS = ("two_way", "one_way", "one_sided")
CLOSE = 8.0
"""The axis shows up to so many bounds: one reply that took seconds must not flatten all others."""


def residuals(readings: pa.Table, clocks: pa.Table, start_ns: int, end_s: float) -> list[tuple[Panel, str]]:
    """A panel and a note for each clock that has both readings and a map; times count from ``start_ns``."""
    segments: dict[str, list[dict[str, Any]]] = {}
    for row in clocks.to_pylist():
        if row["kind"] in DRAWN_KINDS and row["offset_ns"] is not None:
            segments.setdefault(row["clock"], []).append(row)
    names = sorted(segments, key=lambda name: (name.startswith("host."), name))[:CLOCKS]
    found = []
    for name in names:
        mine = readings.filter(pc.equal(readings["clock_of"], name))
        if len(mine):
            panel, drawn = _panel(name, segments[name], mine, start_ns, end_s)
            found.append((panel, _note(segments[name], len(mine), drawn)))
    return found


def _panel(
    name: str, rows: Sequence[Mapping[str, Any]], readings: pa.Table, start_ns: int, end_s: float
) -> tuple[Panel, int]:
    at, low, high = left_for_truth(rows, readings, start_ns)
    boxes = [
        (max(row["start_ns"] / 1e9, 0.0), min(row["stop_ns"] / 1e9, end_s), -row["bound_ns"] / 1e9, row["bound_ns"] / 1e9)
        for row in rows if row["bound_ns"] is not None
    ]  # fmt: skip
    data: list[Figure] = []
    if boxes:
        data.append({
            "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0}, "hoverinfo": "skip",
            "fillcolor": "--u-0", "name": "bound: the truth is here", **rectangles(boxes),
        })  # fmt: skip
    drawn = 0
    for trace, points in _traces(at, low, high):
        data.append(trace)
        drawn += points
    layout = layout_of(end_s)
    layout["showlegend"] = True
    layout["yaxis"] = {
        "title": {"text": "truth \N{MINUS SIGN} map"}, "ticksuffix": "s", "exponentformat": "SI", "gridcolor": "--grid",
        "zerolinecolor": "--axis", "range": _range(boxes, low, high),
    }  # fmt: skip
    describe = (
        f"What each reading of the clock {name} leaves for the truth, in seconds from its map, over time."
    )
    title = f"Clock {literal(name)}"
    return Panel(f"clock-{name}", title, describe, {"data": data, "layout": layout}, 210), drawn


def left_for_truth(
    rows: Sequence[Mapping[str, Any]], readings: pa.Table, start_ns: int
) -> tuple[Floats, Floats, Floats]:
    """Return where the map has each reading, and between what the truth lies, all in s; NaN for an open end.

    The clock showed [tick, tick + resolution) within [not_before, not_after]: it showed ``tick`` not after
    ``not_after``, and not before ``not_before`` less the resolution.
    """
    epoch, tick_ns = (
        np.nan_to_num(readings[c].to_numpy().astype(np.float64)) for c in ("epoch_of", "tick_ns")
    )
    tick = readings["count"].to_numpy().astype(np.int64)
    width = np.nan_to_num(readings["resolution"].to_numpy().astype(np.float64)) * tick_ns
    host = np.full(len(tick), np.nan)
    for row in sorted(rows, key=lambda r: (r["epoch"], r["segment"])):
        placed = row["offset_ns"] + (tick - row["tick0"]) * tick_ns * (1 + row["drift_ppm"] * 1e-6)
        # a later segment takes over from where it starts; the first one answers for all before it
        host = np.where(
            (epoch == row["epoch"]) & (np.isnan(host) | (placed >= row["start_ns"])), placed, host
        )
    ends = [
        readings[c].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
        for c in ("not_before", "not_after")
    ]
    before, after = (end - start_ns for end in ends)
    return host / 1e9, (before - width - host) / 1e9, (after - host) / 1e9


def _traces(at: Floats, low: Floats, high: Floats) -> Iterator[tuple[Figure, int]]:
    """What bounds the truth on both sides as bars, what bounds it on one as triangles that point to it."""
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    if (mine := np.flatnonzero(has_low & has_high & np.isfinite(at))).size:
        mine = _fewer(at, high - low, mine)
        x = np.repeat(at[mine], 3)
        y = np.column_stack([low[mine], high[mine], np.full(len(mine), np.nan)]).ravel()
        yield (
            {**_look("both sides", "--line-0"), "mode": "lines", "x": array(x), "y": array(y)},
            len(mine),
        )
    for name, one, value, sign, symbol in (
        ("not later than", has_high & ~has_low, high, 1.0, "triangle-down"),
        ("not earlier than", has_low & ~has_high, low, -1.0, "triangle-up"),
    ):
        if (mine := np.flatnonzero(one & np.isfinite(at))).size:
            mine = _fewer(at, sign * value, mine)
            marker = {"symbol": symbol, "size": 6}
            look = _look(name, "--line-1" if sign > 0 else "--line-2")
            yield (
                {**look, "mode": "markers", "marker": marker, "x": array(at[mine]), "y": array(value[mine])},
                len(mine),
            )


def _look(name: str, colour: str) -> Figure:
    return {
        "type": "scatter",
        "name": name,
        "line": {"color": colour, "width": 1.2},
        "hovertemplate": "%{y:.4~s}s",
    }


def _fewer(at: Floats, slack: Floats, mine: Any) -> Any:
    """Of many readings the one with the least slack in each of ``DRAWN`` stretches of time."""
    if len(mine) <= DRAWN:
        return mine
    first, last = np.min(at[mine]), np.max(at[mine])
    bin_ = ((at[mine] - first) / max(last - first, 1e-12) * (DRAWN - 1)).astype(np.int64)
    order = np.lexsort((slack[mine], bin_))
    _, best = np.unique(bin_[order], return_index=True)
    return mine[order[best]]


def _range(boxes: Sequence[tuple[float, ...]], low: Floats, high: Floats) -> list[float]:
    """Most readings, and the whole bound."""
    ends = np.abs(np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)], [1e-9]]))
    most = float(np.quantile(ends, 0.9)) * 1.2
    bound = max((box[3] for box in boxes), default=0.0)
    most = max(min(most, CLOSE * bound), 1.3 * bound) if bound else most
    return [-most, most]


def _note(rows: Sequence[Mapping[str, Any]], readings: int, drawn: int) -> str:
    """What the ``clocks`` view says of it, in a sentence; of a clock with many epochs or segments, how many."""
    said = [
        f"{count(readings, 'reading')}, {drawn:,} drawn" if drawn < readings else count(readings, "reading")
    ]
    if len(rows) > 1:
        said.append(count(len(rows), "piece") + " of map")
    else:
        (row,) = rows
        said.append(f"drift {measured(row['drift_ppm'], row['drift_bound_ppm'])} ppm")
        if row["bound_ns"] is not None:
            said.append(f"bound ± {seconds(row['bound_ns'] / 1e9)}")
        if row["latency_ns"] is not None:
            said.append(f"latency up to {seconds(row['latency_ns'] / 1e9)}, which nothing here can tell")
        if row["residual_ns"]:
            said.append(f"readings contradict each other by {seconds(row['residual_ns'] / 1e9)}")
    return "; ".join(said) + "."

"""The plots of clocks: for each what its readings leave for the truth, beside the map that was made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from melt_stream.analysis.clock_latency import latency_drift
from melt_stream.analysis.report.figures import Figure, Panel, array, layout_of, rectangles
from melt_stream.analysis.report.series import Floats, Ints
from melt_stream.analysis.wording import count, measured, seconds

CLOCKS = 8
"""Clocks that are drawn, the devices' before the host's own."""
DRAWN = 1200
"""Readings of one kind drawn at most; of more, the one that says most in each stretch of time."""
Rows = Sequence[Mapping[str, Any]]
DRAWN_KINDS = ("two_way", "one_way", "one_sided")
ENDS: Figure = {"symbol": "line-ew", "size": 5, "line": {"width": 1.2, "color": "--line-0"}}
"""So that a reading which leaves next to nothing is seen."""
CLOSE = 4.0
"""The axis shows up to so many bounds: one reply that took seconds must not flatten all others."""


def residuals(readings: pa.Table, clocks: pa.Table, start_ns: int, end_s: float) -> list[tuple[Panel, str]]:
    """A panel and a note for each clock that has both readings and a map; times count from ``start_ns``."""
    segments: dict[str, list[dict[str, Any]]] = {}
    every = clocks.to_pylist()
    for row in every:
        if row["kind"] in DRAWN_KINDS and row["offset_ns"] is not None:
            segments.setdefault(row["clock"], []).append(row)
    names = sorted(segments, key=lambda name: (name.startswith("host."), name))[:CLOCKS]
    found = []
    for name in names:
        mine = readings.filter(pc.equal(readings["clock_of"], name))
        if len(mine):
            left = left_for_truth(segments[name], mine, readings, every, start_ns)
            panel, drawn = _panel(name, segments[name], left, end_s)
            found.append((panel, _note(segments[name], mine, drawn)))
    return found


def _panel(name: str, rows: Rows, left: tuple[Floats, Floats, Floats], end_s: float) -> tuple[Panel, int]:
    at, low, high = left
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
        "title": {"text": "truth \N{MINUS SIGN} map"}, "tickformat": "~s", "ticksuffix": "s", "gridcolor": "--grid",
        "zerolinecolor": "--axis", "range": _range(boxes, low, high),
    }  # fmt: skip
    describe = (
        f"What each reading of the clock {name} leaves for the truth, in seconds from its map, over time."
    )
    return Panel(f"clock-{name}", f"Clock {name}", describe, {"data": data, "layout": layout}, 210), drawn


def left_for_truth(
    rows: Rows, mine: pa.Table, readings: pa.Table, clocks: Rows, start_ns: int
) -> tuple[Floats, Floats, Floats]:
    """Return where the map of ``rows`` has each of a clock's readings, and between what the truth lies, all in s; NaN
    for an open end. ``readings`` and ``clocks`` are all of the run's: limits may be on another clock.

    The clock showed [tick, tick + resolution) within [not_before, not_after]: it showed ``tick`` not after
    ``not_after``, and not before ``not_before`` less the resolution.
    """
    tick_ns = _floats(mine["tick_ns"])
    host = _placed(rows, mine, "epoch_of", _ints(mine["count"]), tick_ns)
    width = _floats(mine["resolution"]) * tick_ns
    if len(np.unique(width)) == 1:  # as declared, or, where the readings show that it is wider, as found
        width = np.maximum(width, max((row.get("resolution_ns") or 0.0 for row in rows), default=0.0))
    before, after = (
        np.where(_open(mine[end]), np.nan, _on_host(_ints(mine[end]), mine, readings, clocks, start_ns))
        for end in ("not_before", "not_after")
    )
    return host / 1e9, (before - width - host) / 1e9, (after - host) / 1e9


def _placed(rows: Rows, readings: pa.Table, epochs: str, tick: Ints, tick_ns: Floats | float) -> Floats:
    """Where the segments of a map have these ticks, ns since the run's start; NaN where there is none."""
    epoch, host = _ints(readings[epochs]), np.full(len(tick), np.nan)
    tick_ns = np.broadcast_to(tick_ns, len(tick))
    order = np.argsort(epoch, kind="stable")
    in_order = epoch[order]
    for row in sorted(rows, key=lambda r: (r["epoch"], r["segment"])):
        mine = order[slice(*np.searchsorted(in_order, [row["epoch"], row["epoch"] + 1]))]
        rate = tick_ns[mine] * (1 + row["drift_ppm"] * 1e-6)
        placed = row["offset_ns"] + (tick[mine] - row["tick0"]) * rate
        # a later segment takes over from where it starts; the first one answers for all before it
        host[mine] = np.where(np.isnan(host[mine]) | (placed >= row["start_ns"]), placed, host[mine])
    return host


def _on_host(limits: Ints, mine: pa.Table, readings: pa.Table, clocks: Rows, start_ns: int) -> Floats:
    """Limits as host ns since the run's start."""
    host = (limits - start_ns).astype(np.float64)
    if "against" not in mine.column_names:
        return host
    names = np.array(pc.fill_null(mine["against"], "host").to_pylist())
    for other in set(names.tolist()) - {"host"}:
        theirs = names == other
        of_other = readings.filter(pc.equal(readings["clock_of"], other))
        rows = [row for row in clocks if row["clock"] == other and row["offset_ns"] is not None]
        tick_ns = of_other["tick_ns"][0].as_py() if len(of_other) else np.nan
        placed = _placed(rows, mine.filter(pa.array(theirs)), "against_epoch", limits[theirs], tick_ns)
        host[theirs] = placed if len(of_other) else np.nan
    return host


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = np.nan_to_num(column.to_numpy().astype(np.float64))
    return values


def _ints(column: pa.ChunkedArray) -> Ints:
    """0 where there is none; a time since 1970 in ns needs all of its bits until another one is taken off it."""
    values: Ints = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    return values


def _open(column: pa.ChunkedArray) -> Any:
    return column.is_null().to_numpy()


def _traces(at: Floats, low: Floats, high: Floats) -> Iterator[tuple[Figure, int]]:
    """What bounds the truth on both sides as bars, what bounds it on one as triangles that point to it."""
    has_low, has_high = np.isfinite(low), np.isfinite(high)
    if (mine := np.flatnonzero(has_low & has_high & np.isfinite(at))).size:
        mine = _fewer(at, high - low, mine)
        x = np.repeat(at[mine], 3)
        y = np.column_stack([low[mine], high[mine], np.full(len(mine), np.nan)]).ravel()
        yield (
            {
                **_look("both sides", "--line-0"),
                "mode": "lines+markers",
                "marker": ENDS,
                "x": array(x),
                "y": array(y),
            },
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


def _note(rows: Rows, mine: pa.Table, drawn: int) -> str:
    """What the ``clocks`` view says of it, in a sentence; of a clock with many epochs or segments, how many."""
    readings = len(mine)
    said = [
        f"{count(readings, 'reading')}, {drawn:,} drawn" if drawn < readings else count(readings, "reading")
    ]
    if len(rows) > 1:
        said.append(count(len(rows), "piece") + " of map")
    else:
        (row,) = rows
        said.append(f"drift {measured(row['drift_ppm'], row['drift_bound_ppm'])} ppm")
        if (estimate := latency_drift(mine)) is not None:
            ppm = measured(estimate[0] * 1e6, estimate[1] * 1e6)
            said.append(f"commands and answers, each with a latency of its own, tell {ppm} ppm (95 %)")
        if row["bound_ns"] is not None:
            said.append(f"bound ± {seconds(row['bound_ns'] / 1e9)}")
        if row["latency_ns"] is not None:
            said.append(f"latency up to {seconds(row['latency_ns'] / 1e9)}, which nothing here can tell")
        if row["residual_ns"]:
            said.append(f"readings contradict each other by {seconds(row['residual_ns'] / 1e9)}")
    return "; ".join(said) + "."

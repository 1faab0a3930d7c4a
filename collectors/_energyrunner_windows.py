"""EnergyRunner's windows as requests, and their official figures beside the recomputed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from melt_stream.collectors._energyrunner import OfficialRule, WindowResult
from melt_stream.collectors._oracles import ORACLES, oracle
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

_UNITS = {"joules": "J", "mean_w": "W", "joules_per_inference": "J", "seconds": "s", "inferences_per_s": "/s"}


class Edge(NamedTuple):
    """A time stamp of a window's edge on its clock."""

    epoch: int
    tick: int


def window_numbers(edges: int, results: dict[int, WindowResult]) -> list[int]:
    """The windows' numbers: every pair after the first edge, and others that the results name."""
    pairs = set(range(2, edges, 2))
    return sorted(pairs | {w for w in results if 0 < w < edges})


def emit_windows(
    out: Outlet,
    stream: Stream,
    edges: list[Edge],
    windows: list[int],
    inferences: list[int],
    model: str | None,
) -> dict[int, int]:
    """Write the windows as requests; return their numbers. A last edge without its pair starts one without an end."""
    requests: dict[int, int] = {}
    unpaired = [len(edges)] if len(edges) > 1 and len(edges) % 2 == 0 else []
    for w in [*windows, *unpaired]:
        requests[w] = out.next_request()
        pair = w // 2 - 1
        ran = inferences[pair] if w % 2 == 0 and pair < len(inferences) else None
        about = {"window": w, "inferences": ran, "model": model}
        detail = json.dumps({key: value for key, value in about.items() if value is not None})
        label: dict[str, Any] = {"request": requests[w], "name": f"window {w}", "detail": detail}
        for kind, (epoch, tick) in zip(("window_start", "window_end"), edges[w - 1 : w + 1], strict=False):
            out.row(stream, tick=tick, epoch=epoch, kind=kind, **label)
    return requests


def check_results(
    windows: list[int], edges: list[Edge], results: dict[int, WindowResult], path: Path
) -> None:
    """Refuse results of another run: an official figure beside the wrong window would mislead."""
    for w, result in results.items():
        if edges and w not in windows:
            raise DataError(
                f"{path}, line {result.line}: expected a window between {len(edges)} edges, got window {w}"
            )
        if edges and result.at_s is not None and abs(result.at_s - edges[w - 1].tick / 1e9) > 0.0101:
            raise DataError(
                f"{path}, line {result.line}: expected window {w} at {edges[w - 1].tick / 1e9:.2f} s as in the time stamps, "
                f"got {result.at_s} s; are these files of one run?"
            )


def recomputed(
    rule: OfficialRule, position: int, rate: float, result: WindowResult | None, seconds: float
) -> dict[str, float]:
    """Return a window's figures by the official rule; none for a window in which no sample counts."""
    count = int(rule.counts[position])
    own = {"joules": float(rule.sums[position]) * 1e-6} if count else {}
    if count:
        own["mean_w"] = own["joules"] / (count / rate)
    return own | per_inference(own.get("joules"), result, seconds)


def per_inference(joules: float | None, result: WindowResult | None, seconds: float) -> dict[str, float]:
    """Return what follows from the number of inferences, where the results say it."""
    ran = result.values.get("inferences") if result else None
    own = {"seconds": seconds}
    if ran and seconds:
        own["inferences_per_s"] = ran / seconds
    if ran and joules is not None:
        own["joules_per_inference"] = joules / ran
    return own


def emit_oracles(
    out: Outlet, request: int | None, own: dict[str, float], result: WindowResult | None
) -> None:
    """Write each reported figure beside the recomputed one, and energy and power in any case."""
    reported = result.values if result else {}
    for quantity, unit in _UNITS.items():
        if quantity in reported or (quantity in own and quantity in ("joules", "mean_w")):
            out.row(ORACLES, **oracle(request, quantity, unit, reported.get(quantity), own.get(quantity)))

"""The cells of a study and what their runs gave: each figure a typical value with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from melt_stream.analysis.bandwidth import bandwidth, mean_context
from melt_stream.analysis.catalogue import Entry, outcome_of
from melt_stream.analysis.compare.comparing import own
from melt_stream.analysis.compare.observed import Side, side, value
from melt_stream.run import Run

METRICS = (
    "request.j_per_token", "request.j_per_request", "prefill.j_per_token", "decode.j_per_token", "decode.mean_w", "prefill.tokens_per_s", "decode.tokens_per_s",
    "request.ttft_s", "decode.itl_p50_s", "decode.itl_p95_s", "prefill.joules", "decode.joules", "window.joules", "run.joules",
)  # fmt: skip
PER_CHARGE = "request.per_charge"
"""Requests that a charge is enough for, as if the battery fed what was measured."""
PEAK = "peak_bandwidth_gb_per_s"
"""The condition, of a device or of the run, that tells its memory's peak, in 1e9 bytes a second."""
FAR = 3.5
"""A repetition is called an outlier where its modified z-score, 0.6745 |x - median| / MAD, is larger (Iglewicz and Hoaglin, 1993). None is
left out."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A typical value over repetitions, with its 95 % interval; an end is None where nobody knows it."""

    value: float
    low: float | None
    high: float | None
    count: int


@dataclass
class Cell:
    """A cell on one device."""

    id: str
    points: Mapping[str, str]
    device: str | None
    side: Side | None
    """Its finished runs, without warm-ups; None where there are none."""
    counts: Mapping[str, int]
    """Runs by outcome; warm-ups apart."""
    failures: Sequence[str]
    figures: dict[str, Figure] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    """Of the zoo: quantisation, bits per weight, bytes, sha256."""
    accuracy: dict[str, Figure] = field(default_factory=dict)
    """By ``task metric``."""
    accuracy_up: dict[str, bool] = field(default_factory=dict)
    """Whether more of it is better."""
    experience: Row = field(default_factory=dict)
    """Means over requests: peak memory, stalls, degenerate answers."""
    outliers: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its points, and its device."""
        words = [f"{axis}={point}" for axis, point in self.points.items()]
        return " ".join(words) or "the only cell"

    @property
    def where(self) -> str | None:
        """The boundary of its energy, and whether it is estimated."""
        accounts = sorted(self.side.accounts) if self.side else []
        return ", ".join(f"{b}, estimated" if estimated else b for b, estimated in accounts) or None


@dataclass(frozen=True)
class Material:
    """All that the page shows."""

    study: str
    cells: list[Cell]
    runs: list[Entry]
    sustained: list[Row]
    """Requests of finished runs: run, device, start_s, decode_tokens_per_s."""

    @property
    def axes(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(axis for cell in self.cells for axis in cell.points))


def gather(
    study: str,
    entries: Sequence[Entry],
    runs: Mapping[str, Run],
    told: Mapping[str, Sequence[Row]],
    battery_j: float | None = None,
) -> Material:
    """Make the material of a study.

    ``entries`` are its runs as the catalogue has them, ``runs`` the packed ones that count, by id; ``told`` are rows of the views
    ``accuracy`` (of the whole archive), ``qoe`` and ``requests`` (of these runs). ``battery_j`` is the energy of a charge, from which
    prompts per charge follow.
    """
    cells = [made for group in _by_cell(entries) for made in _cells(group, runs)]
    for cell in cells:
        _fill(cell, told)
        if battery_j is not None and (each := cell.figures.get("request.j_per_request")):
            cell.figures[PER_CHARGE] = _per_charge(each, battery_j)
    return Material(study, cells, list(entries), list(told.get("requests", ())))


def _per_charge(each: Figure, battery_j: float) -> Figure:
    low, high = (None if x is None else battery_j / x for x in (each.high, each.low))
    return Figure(battery_j / each.value, low, high, each.count)


def _by_cell(entries: Iterable[Entry]) -> list[list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry["cell"], []).append(entry)
    return list(groups.values())


def _cells(group: list[Entry], runs: Mapping[str, Run]) -> list[Cell]:
    mine = [runs[entry["id"]] for entry in group if entry["id"] in runs]
    counts = {
        outcome: sum(outcome_of(e) == outcome and not e["study"].get("warmup") for e in group)
        for outcome in ("done", "failed", "interrupted")
    }
    failures = [e["study"].get("failure", "other") for e in group if outcome_of(e) == "failed"]
    about = (group[0]["cell"], group[-1]["study"].get("points", {}))
    devices = sorted({d for run in mine for d in run.table("phases", ["device"])["device"].to_pylist()})
    if not devices:
        return [Cell(*about, None, None, counts, failures)]
    return [
        Cell(*about, device, side(about[0], _of(mine, device), device), counts, failures)
        for device in devices
    ]


def _of(runs: Sequence[Run], device: str) -> list[Run]:
    return [run for run in runs if device in run.table("phases", ["device"])["device"].to_pylist()]


def _fill(cell: Cell, told: Mapping[str, Sequence[Row]]) -> None:
    if cell.side is None:
        return
    ids = {run.id for run in cell.side.runs}
    for metric in METRICS:
        middle, low, high = own(cell.side, metric, "run")
        if middle is not None:
            known = [x for one in cell.side.by_run if (x := value(one, metric)) is not None]
            cell.figures[metric] = Figure(middle, low, high, len(known))
    cell.outliers = _outliers(cell.side)
    cell.model = next((model for run in cell.side.runs for model in run.manifest.models.values()), {})
    asked = [row for row in told.get("qoe", ()) if row["run"] in ids and row["device"] == cell.device]
    cell.experience = {**_experience(asked), "memory_bound": _memory_bound(cell, asked)}
    _accuracy(cell, ids, told.get("accuracy", ()))


def _outliers(side: Side) -> list[str]:
    known = [
        (run.id, value(one, "request.j_per_token") or value(one, "run.joules"))
        for run, one in zip(side.runs, side.by_run, strict=True)
    ]
    listed = [(run, x) for run, x in known if x is not None]
    if len(listed) < 4:
        return []
    values = np.array([x for _, x in listed])
    off = np.abs(values - np.median(values))
    spread = float(np.median(off))
    return [run for (run, _), z in zip(listed, off, strict=True) if spread and 0.6745 * z / spread > FAR]


def _experience(rows: Sequence[Row]) -> Row:
    def known(name: str) -> list[Any]:
        return [row[name] for row in rows if row[name] is not None]

    judged = known("degenerate")
    return {
        "requests": len(rows), "peak_rss": max(known("peak_rss"), default=None),
        "stalls": sum(known("stalls")) if known("stalls") else None,
        "degenerate": sum(word != "none" for word in judged) / len(judged) if judged else None,
    }  # fmt: skip


def _memory_bound(cell: Cell, rows: Sequence[Row]) -> float | None:
    """The share of the memory's peak bandwidth that decoding needs at least; None where the model, the speed or the peak is not known."""
    speed = cell.figures.get("decode.tokens_per_s")
    asked = [row for row in rows if row["prompt_tokens"] is not None and (row["output_tokens"] or 0) >= 2]
    if cell.side is None or speed is None or not asked:
        return None
    told = cell.side.runs[-1].manifest.conditions
    of_device = told.get(cell.device or "")
    peak = (of_device if isinstance(of_device, dict) else {}).get(PEAK, told.get(PEAK))
    kv = (cell.model.get("kv_bytes_per_token") or {}).get("F16")
    context = fmean(mean_context(row["prompt_tokens"], row["output_tokens"]) for row in asked)
    return bandwidth(
        cell.model.get("weight_bytes"), kv, context, speed.value, None if peak is None else peak * 1e9
    )


def _accuracy(cell: Cell, ids: set[str], rows: Sequence[Row]) -> None:
    """Take the figures of its own runs; of what it does not evaluate itself, those of the same model file elsewhere in the archive."""
    sha256 = cell.model.get("sha256")
    own_rows = [row for row in rows if row["run"] in ids]
    others = [row for row in rows if row["run"] not in ids and sha256 is not None and row["sha256"] == sha256]
    for row in [*others, *own_rows]:
        if row["value"] is None:
            continue
        name = f"{row['task']} {row['metric']}"
        u = row["stderr"]
        low, high = (None, None) if u is None else (row["value"] - 1.96 * u, row["value"] + 1.96 * u)
        cell.accuracy[name] = Figure(row["value"], low, high, 1)
        cell.accuracy_up[name] = bool(row["higher_is_better"])

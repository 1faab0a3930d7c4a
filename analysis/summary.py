"""What ``melt-stream run`` and ``melt-stream energy`` print: the table, the notes below it, and the JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from melt_stream.analysis import marker_notes
from melt_stream.analysis.phase_rows import ENOUGH, Derived, Row, rows_of
from melt_stream.analysis.wording import NOTHING, measured, number, percent, seconds

FLAGS = {
    "unstated": "the accuracy of the rail is stated nowhere: ± holds only what is known, and is too small",
    "saturated": "samples at full scale: the true energy may be higher",
    "stale": "the rail repeated one value for long: it may not have measured",
    "extrapolated": "the interval reaches beyond the rail's samples or its clock's readings",
    "shared": "the energy of phases that overlap is divided equally among them",
}
"""What a flag means, for who reads the table."""


@dataclass(frozen=True)
class Summary:
    """The table of one run, and the sentences that belong below it."""

    run: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def measured_power(self) -> bool:
        """False where no row has joules: then there is no answer, and the command line exits with 3."""
        return any(row.joules is not None for row in self.rows)


def summarise(run: Derived) -> Summary:
    """Sum the phases of a packed run over its requests."""
    rows = rows_of(run)
    return Summary(
        run.id, tuple(rows), (*marker_notes.warnings(run), *_notes(rows), *marker_notes.notes(run))
    )


def payload(run: Derived) -> dict[str, Any]:
    """What ``melt-stream energy --json`` prints: the derived rows under the column names of DESIGN section 4."""
    return {
        "run": run.id,
        "phases": [_plain(row) for row in run.table("phases").to_pylist()],
        "tokens": [_plain(row) for row in run.table("tokens").to_pylist()],
        "markers": [_plain(row) for row in marker_notes.rows(run)],
    }


def table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Headers and cells as text, without the columns that say nothing in this run."""
    columns = [(header, [cell(row) for row in summary.rows]) for header, cell in _COLUMNS.items()]
    devices = {row.device for row in summary.rows}
    keep = [
        (header, cells)
        for header, cells in columns
        if any(cell != NOTHING for cell in cells) and (header != "device" or len(devices) > 1)
    ]
    return [header for header, _ in keep], [list(cells) for cells in zip(*(c for _, c in keep), strict=True)]


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "device": lambda row: row.device,
    "phase": lambda row: row.phase if row.name is None else f"{row.phase}: {row.name}",
    "duration": lambda row: seconds(row.duration_s),
    "energy / J": lambda row: measured(row.joules, row.joules_u),
    "net / J": lambda row: measured(row.net_joules, row.net_joules_u),
    "mean / W": lambda row: number(row.mean_w),
    "tokens": lambda row: NOTHING if row.tokens is None else f"{row.tokens:,}",
    "J/token": lambda row: measured(row.joules_per_token, row.joules_per_token_u),
    "mWh/token": lambda row: number(row.mwh_per_token),
    "boundary": lambda row: row.where,
    "tokens/s": lambda row: number(row.tokens_per_s),
    "TTFT": lambda row: seconds(row.ttft_s),
    "ITL p50": lambda row: seconds(row.itl_p50_s),
    "ITL p95": lambda row: seconds(row.itl_p95_s),
    "coverage": lambda row: percent(row.coverage),
    "quality": lambda row: ", ".join((row.quality, *row.flags)),
}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is not a number is not known."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _notes(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Nothing happened in this run: it has no phases."]
    notes = []
    for device in dict.fromkeys(row.device for row in rows):
        mine = [row for row in rows if row.device == device]
        notes += _energy_notes(device, mine)
    return notes


def _energy_notes(device: str, rows: list[Row]) -> list[str]:
    if len(rows[0].devices) > 1:
        return [_together(device, rows)]
    whole = next((row for row in rows if row.phase == "run"), rows[-1])
    if whole.joules is None:
        return [
            f"Nothing measured the power of {device}: there are no joules. `melt-stream doctor` says what could."
        ]
    total = f"{whole.sensor}/{whole.rail} at the boundary {whole.boundary}"
    notes = [f"Energy of {device}: the rail {total}; every J/token is energy at that boundary."]
    if whole.estimated:
        notes.append(
            f"This energy is estimated: a model stands in for a sensor, nothing measured the power of {device}."
        )
    if any(row.net_joules is not None for row in rows):
        notes.append("Net is less the idle baseline measured before and after.")
    else:
        notes.append(f"There is no net energy of {device}: no idle baseline was measured.")
    if any(row.phase == "request" for row in rows):
        notes.append(
            "The row request is queue, prefill and decode together; its J/token is per output token."
        )
    flags = {flag for row in rows for flag in row.flags}
    notes += [f"Flag {flag}: {words}." for flag, words in FLAGS.items() if flag in flags]
    if gaps := [row.phase for row in rows if row.coverage is not None and row.coverage < ENOUGH]:
        below = ", ".join(dict.fromkeys(gaps))
        notes.append(
            f"Partial: less than 99 % of {below} was covered by samples, so no J/token and mean W are given; "
            "joules are what was measured."
        )
    return notes


def _together(device: str, rows: list[Row]) -> str:
    """What the joules of several devices together are, or why there are none."""
    if any(row.joules is not None for row in rows):
        return f"{device}: the requests that they have a part in, all at the boundary {rows[0].boundary}; compare no other row."
    if rows[0].boundary is None:
        return f"{device}: they are not measured at one boundary, so their joules are not added."
    return f"{device}: not all of them are measured, so their joules are not added."

"""What measuring leaves of uncertainty in a ratio of two sides' energies.

The logarithm of the ratio E_B / E_A is linear in both near the measured values, so its uncertainty is that of the sum of B's rows,
each divided by E_B, less A's, each divided by E_A, by the rule of ``joules_u_of``: what has one name on both sides counts with its
difference. A gain that both sides have in common, since one meter measured both, cancels; clocks, idle baselines and
sampling are each run's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from melt_stream.analysis.compare.observed import Kept, Side
from melt_stream.analysis.uncertainty import joules_u_of
from melt_stream.run import Run

_OF_THE_METER = ("gain ", "offset ")
"""How the factors' names begin that are the instrument's; all others are of the run."""
_SUMMED = ("joules", "net_joules", "seconds", "joules_per_clock")


def ratio_u(a: Side, b: Side, phase: str, of: str = "joules") -> float | None:
    """Return the standard uncertainty of ln(E_B / E_A) of a phase; None where one of them is not known or not positive."""
    one_meter = same_meter(a, b)
    rows, factors = list[dict[str, Any]](), list[pa.Table]()
    for side, sign, mark in ((a, -1, "a"), (b, 1, "b")):
        mine = _rows(side, phase)
        total = math.fsum(row[of] for row in mine if row[of] is not None)
        if total <= 0:
            return None
        rows += [_scaled(row, sign / total) for row in mine]
        factors += [_own(one, "" if one_meter else mark) for one in side.kept]
    return joules_u_of(rows, pa.concat_tables(factors), of)


def own_u(side: Side, phase: str, of: str = "joules") -> float | None:
    """Return the relative standard uncertainty of a phase's energy by itself; None where it is not known or not positive."""
    rows = _rows(side, phase)
    total = math.fsum(row[of] for row in rows if row[of] is not None)
    if total <= 0:
        return None
    u = joules_u_of(rows, pa.concat_tables([_own(one, "") for one in side.kept]), of)
    return None if u is None else u / total


def unstated(side: Side, phase: str) -> bool:
    """Tell whether the accuracy of what measured is stated nowhere: the uncertainty is then too small."""
    return any("unstated" in (row["flags"] or ()) for row in _rows(side, phase))


def same_meter(a: Side, b: Side) -> bool:
    """Tell whether one instrument, in one place, measured all runs of both sides, as far as they tell."""
    known = {_meter(run, side.rows) for side in (a, b) for run in side.runs}
    return len(known) == 1 and None not in known


def _meter(run: Run, phases: Iterable[dict[str, Any]]) -> str | None:
    """What tells an instrument apart: the account's rail with its accuracy, its entry of the recipe, serial numbers, the host."""
    measured = next((row for row in phases if row["run"] == run.id and row["sensor"]), None)
    if measured is None:
        return None
    sensor, rail = measured["sensor"], measured["rail"]
    instance = sensor.partition(".")[0]
    rails = [r for r in run.manifest.rails if (r["sensor_of"], r["name"]) == (sensor, rail)]
    facts = {f["name"]: f["value"] for f in run.manifest.facts if f["instance_of"] == instance}
    serial = {name: value for name, value in facts.items() if "serial" in name}
    entry = run.manifest.recipe.get("collectors", {}).get(instance)
    accuracy = [{name: r.get(name) for name in ("gain", "offset", "source", "boundary")} for r in rails]
    told = [sensor, rail, accuracy, entry, serial, run.manifest.host.get("name"), run.manifest.imported]
    return json.dumps(told, sort_keys=True, default=str)


def _rows(side: Side, phase: str) -> list[dict[str, Any]]:
    def meant(row: dict[str, Any]) -> bool:
        of_request = row["request"] is not None and row["phase"] in ("queue", "prefill", "decode")
        return phase in (row["phase"], row["name"], "run") or (phase == "request" and of_request)

    return [row for row in side.rows if meant(row)]


def _scaled(row: dict[str, Any], by: float) -> dict[str, Any]:
    scaled = {name: None if row[name] is None else row[name] * by for name in _SUMMED}
    return {**row, **scaled, "joules_var": (row["joules_var"] or 0.0) * by**2}


def _own(run: Kept, mark: str) -> pa.Table:
    """Return a run's factors, each for its own rows, under names that only what is common shares."""
    table = run.table("factors")
    names = [
        f"{mark} {name}" if name.startswith(_OF_THE_METER) else f"{name} of {run.id}"
        for name in table["factor"].to_pylist()
    ]
    columns = {"factor": pa.array(names, pa.utf8()), "run": pa.array([run.id] * len(table), pa.utf8())}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table

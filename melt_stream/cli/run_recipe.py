"""``melt-stream run``: a recipe from the first reading to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from melt_stream import recipe as recipes
from melt_stream.analysis.pack import pack
from melt_stream.analysis.report import build
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, say
from melt_stream.cli._energy_table import show_energy
from melt_stream.cli._recording import record_and_tell, status, tell_of_markers, where
from melt_stream.harness.zoo.references import planned


def run(
    recipe: Annotated[Path, Parameter(help="The recipe, a TOML file.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> int:
    """Record a recipe, pack it, attribute its energy, print the table and write the report.

    With --json: {"run": id, "path": ..., "report": ...}.
    """
    plan = planned(recipes.read(recipe), str(recipe))
    outcome = record_and_tell(plan, options)
    packed = pack(outcome.path)
    report = build(packed, packed.path / "report.html")
    if options.json:
        tell_of_markers(packed)
        print_json({**where(packed.path), "report": str(report)})
        return status(outcome)
    inconclusive = show_energy(packed, options)
    say(f"run     {packed.path}\nreport  {report}")
    return status(outcome) or inconclusive

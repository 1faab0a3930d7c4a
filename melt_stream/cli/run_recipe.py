"""``melt-stream run``: a recipe from the first reading to the report, or all that is left of a study."""

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
from melt_stream.cli._study import run_study
from melt_stream.errors import ConfigError
from melt_stream.harness.study import is_study, study_of


def run(
    recipe: Annotated[Path, Parameter(help="The recipe, a TOML file; with a table [study] it is a study.")],
    /,
    *,
    plan: Annotated[
        bool,
        Parameter(
            negative="", help="Of a study: say what there is to do and what it will take; start nothing."
        ),
    ] = False,
    retry_failed: Annotated[
        bool, Parameter(negative="", help="Of a study: make again also what has failed before.")
    ] = False,
    only: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="Of a study: axis=point; only cells there. Can be given several times."),
    ] = (),
    options: Options = NO_OPTIONS,
) -> int:
    """Record a recipe, pack it, attribute its energy, print the table and write the report.

    With --json: {"run": id, "path": ..., "report": ...}. Of a study, make every run that is not done yet; interrupted,
    the same command goes on where it stopped. Its exit status is 0 when all is done.
    """
    data = recipes.load_toml(recipe)
    if is_study(data):
        return run_study(study_of(data, recipe), options, plan=plan, retry_failed=retry_failed, only=only)
    if plan or retry_failed or only:
        raise ConfigError(
            f"{recipe}: expected a study for --plan, --retry-failed and --only, got a recipe without [study]"
        )
    outcome = record_and_tell(recipes.plan(recipes.parse(data, str(recipe)), str(recipe)), options)
    packed = pack(outcome.path)
    report = build(packed, packed.path / "report.html")
    if options.json:
        tell_of_markers(packed)
        print_json({**where(packed.path), "report": str(report)})
        return status(outcome)
    inconclusive = show_energy(packed, options)
    say(f"run     {packed.path}\nreport  {report}")
    return status(outcome) or inconclusive

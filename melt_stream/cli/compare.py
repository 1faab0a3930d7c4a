"""``melt-stream compare``: sides against the first, with intervals; budgets for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from melt_stream.cli._app import FAILED, INCONCLUSIVE
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table, say

if TYPE_CHECKING:
    from melt_stream.analysis.compare import Comparison


def compare(
    sides: Annotated[
        list[str],
        Parameter(
            help="Runs (id, prefix, path, `last`), or NAME=CONDITION: all runs of which this SQL of the view `runs` is true."
        ),
    ],
    /,
    *,
    metric: Annotated[
        tuple[str, ...],
        Parameter(help="PHASE.METRIC, such as decode.j_per_token; several allowed.", negative=""),
    ] = (),
    budget: Annotated[
        tuple[str, ...],
        Parameter(
            help="A limit that the last side must keep: 'decode.j_per_token <= 0.9', or '<= 1.05x' of the first.",
            negative="",
        ),
    ] = (),
    device: Annotated[str | None, Parameter(help="The device to compare, where runs have several.")] = None,
    mixed: Annotated[
        bool,
        Parameter(
            help="Compare energies of different boundaries, or estimated with measured ones.", negative=""
        ),
    ] = False,
    options: Options = NO_OPTIONS,
) -> int:
    """Compare runs, or groups of runs: difference, 95 % interval, p. Exit status 1: a budget is broken; 3: undecidable."""
    from melt_stream.analysis.compare import Budget, study_keys
    from melt_stream.analysis.compare import compare as comparison
    from melt_stream.analysis.compare import side as side_of
    from melt_stream.analysis.compare.told import payload
    from melt_stream.errors import ConfigError
    from melt_stream.harness.chosen import chosen

    budgets = [Budget.parse(text) for text in budget]
    if len(sides) < 2 and not budgets:
        raise ConfigError("compare: expected two sides or more, or one with --budget, got one")
    named = [chosen(options.folder, text) for text in sides]
    keys = study_keys([runs for _, runs in named])
    made = [side_of(name, runs, device, mine) for (name, runs), mine in zip(named, keys, strict=True)]
    told = comparison(made, metrics=metric, budgets=budgets, mixed=mixed)
    if options.json:
        print_json(payload(told))
    else:
        _print(told)
    return _status(told)


def _print(told: Comparison) -> None:
    from melt_stream.analysis.compare.told import notes, tables

    for title, headers, rows in tables(told):
        print_table(title, headers, rows)
    for note in notes(told):
        say(note)


def _status(told: Comparison) -> int:
    words = {verdict.word for verdict in told.verdicts}
    if "broken" in words:
        return FAILED
    if "undecidable" in words or not (told.verdicts or any(one.difference for one in told.results)):
        return INCONCLUSIVE
    return 0

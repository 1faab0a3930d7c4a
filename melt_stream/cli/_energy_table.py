"""The table of a run, as ``run`` and ``energy`` print it."""

from __future__ import annotations

from melt_stream.analysis import summary
from melt_stream.cli._app import INCONCLUSIVE
from melt_stream.cli._common import Options, print_json, print_table, say
from melt_stream.cli._recording import tell_of_markers
from melt_stream.run import Run


def show_energy(run: Run, options: Options) -> int:
    """Print a packed run's energy by phase; return 3 where nothing measured power, else 0."""
    found = summary.summarise(run)
    tell_of_markers(run)
    if options.json:
        print_json(summary.payload(run))
    else:
        columns, rows = summary.table(found)
        print_table(f"run {found.run}", columns, rows, caption="\n".join(found.notes))
    if found.measured_power:
        return 0
    say(
        "melt-stream: inconclusive: nothing measured power in this run; `melt-stream doctor` tells what could"
    )
    return INCONCLUSIVE

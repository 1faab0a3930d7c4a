"""``melt-stream energy``: the table of a run."""

from __future__ import annotations

from melt_stream.cli._common import NO_OPTIONS, Options, RunName
from melt_stream.cli._energy_table import show_energy


def energy(run: RunName = "last", /, *, options: Options = NO_OPTIONS) -> int:
    """Print a run's energy by phase; exit status 3 where nothing measured power."""
    from melt_stream.harness.session import packed_run

    return show_energy(packed_run(options.folder, run), options)

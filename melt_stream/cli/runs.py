"""``melt-stream runs``: the archive's runs, and ``tag``, ``note`` and ``rm`` for one of them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, RunName, print_json, print_table, say
from melt_stream.errors import ConfigError

app = App(
    name="runs", help="List the runs of the archive; tag, note or remove one.", result_action="return_value"
)
COLUMNS = ("run", "state", "name", "started", "seconds", "exit", "tags", "note")


@app.default
def runs(*, options: Options = NO_OPTIONS) -> None:
    """List the runs of the archive, oldest first."""
    from melt_stream.analysis.catalogue import overview

    rows = overview(options.folder)
    if options.json:
        print_json(rows)
    else:
        print_table("", COLUMNS, [[row[column] for column in COLUMNS] for row in rows])


@app.command
def tag(run: RunName, /, *tags: str, remove: bool = False, options: Options = NO_OPTIONS) -> None:
    """Add tags to a run, or remove them with --remove."""
    from melt_stream.run import find

    found = find(options.folder, run)
    found.tag(*tags, remove=remove)
    say(f"{found.id}: {', '.join(found.manifest.tags) or 'no tags'}")


@app.command
def note(run: RunName, text: str, /, *, options: Options = NO_OPTIONS) -> None:
    """Set a run's note; an empty text removes it."""
    from melt_stream.run import find

    find(options.folder, run).note(text)


@app.command
def rm(
    *runs: RunName,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Remove runs and all that was recorded in them."""
    from melt_stream.run import find

    if not runs:
        raise ConfigError("runs rm: expected the runs to remove, got none")
    for found in [find(options.folder, run) for run in runs]:
        if not yes and input(f"remove {found.id} and its recordings? [y/N] ").strip().lower() != "y":
            continue
        found.remove()
        say(f"removed {found.id}")

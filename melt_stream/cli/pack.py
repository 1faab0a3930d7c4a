"""``melt-stream pack``: a recorded run becomes Parquet with its derived tables."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, RunName, print_json, say


def pack(
    run: RunName = "last",
    /,
    *,
    again: Annotated[
        bool, Parameter(negative="", help="Derive again, from the raw columns of a packed run.")
    ] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Turn a recorded run into Parquet and derive its clocks, phases, tokens and energy."""
    from melt_stream.analysis.pack import pack as pack_run
    from melt_stream.run import find

    packed = pack_run(find(options.folder, run).path, again=again)
    if options.json:
        print_json({"run": packed.id, "path": str(packed.path)})
    else:
        say(f"packed {packed.id} in {packed.path}")

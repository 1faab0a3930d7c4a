"""``melt-stream report``: one HTML file that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, RunName, print_json


def report(
    run: RunName = "last",
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="File to write (default: in the run).")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Write a run's report: power over time with phases and tokens, energy per token, provenance."""
    from melt_stream.analysis.report import build
    from melt_stream.harness.session import packed_run

    found = packed_run(options.folder, run)
    path = build(found, out or found.path / "report.html")
    if options.json:
        print_json({"run": found.id, "path": str(found.path), "report": str(path)})
    else:
        print(path)

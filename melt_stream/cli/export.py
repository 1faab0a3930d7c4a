"""``melt-stream export``: a run's tables as files for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, RunName, print_json
from melt_stream.errors import ConfigError


def export(
    run: RunName = "last",
    /,
    *,
    csv: Annotated[Path | None, Parameter(help="Folder for one CSV file a table.")] = None,
    parquet: Annotated[Path | None, Parameter(help="Folder for one Parquet file a table.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Write a run's tables, raw and derived, as CSV or Parquet files."""
    from melt_stream.analysis.export import export as export_run
    from melt_stream.harness.session import packed_run

    if csv is None and parquet is None:
        raise ConfigError("export: expected --csv DIR or --parquet DIR, got neither")
    found = packed_run(options.folder, run)
    files = [
        *(export_run(found, csv, format="csv") if csv else []),
        *(export_run(found, parquet, format="parquet") if parquet else []),
    ]
    if options.json:
        print_json({"run": found.id, "files": [str(path) for path in files]})
    else:
        print("\n".join(map(str, files)))

"""``melt-stream report``: one HTML file that opens from disk, of a run or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, print_json


def report(
    name: Annotated[
        str, Parameter(help="A run's id, a unique prefix of it, its path, or `last`; or the name of a study.")
    ] = "last",
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(
            name=["--out", "-o"], help="File to write (default: in the run; of a study, in the archive)."
        ),
    ] = None,
    tables: Annotated[
        Path | None, Parameter(help="Of a study: a folder for its tables as CSV and Parquet.")
    ] = None,
    battery: Annotated[
        str | None, Parameter(help="Of a study: a battery, such as 4410mAh@3.85V, for requests per charge.")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Write a report: of a run, power over time with phases and tokens; of a study, its cells with intervals, side by side."""
    from melt_stream.errors import ConfigError
    from melt_stream.harness.study.reported import studies

    if name in studies(options.folder):
        _study(name, out, tables, battery, options)
    elif tables is not None or battery is not None:
        raise ConfigError(
            f"--tables, --battery: expected the name of a study, got {name!r}; `melt-stream export` writes a run's"
        )
    else:
        _run(name, out, options)


def _run(name: str, out: Path | None, options: Options) -> None:
    from melt_stream.analysis.report import build
    from melt_stream.harness.session import packed_run

    found = packed_run(options.folder, name)
    path = build(found, out or found.path / "report.html")
    if options.json:
        print_json({"run": found.id, "path": str(found.path), "report": str(path)})
    else:
        print(path)


def _study(name: str, out: Path | None, tables: Path | None, battery: str | None, options: Options) -> None:
    from melt_stream.analysis.study.battery import joules_of
    from melt_stream.harness.study.reported import material, write, write_tables

    found, path = (
        material(options.folder, name, joules_of(battery) if battery else None),
        out or options.folder / f"study-{name}.html",
    )
    write(found, options.folder, path)
    files = write_tables(found, tables) if tables is not None else []
    if options.json:
        print_json({"study": name, "report": str(path), "tables": [str(file) for file in files]})
    else:
        print(*[path, *files], sep="\n")

"""``melt-stream sql``: read-only SQL over one run or the whole archive."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table, say
from melt_stream.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS = 1000


def sql(
    query: Annotated[str | None, Parameter(help="One SELECT; read from stdin where left out.")] = None,
    /,
    *,
    run: Annotated[str | None, Parameter(help="Ask one run only: id, prefix, path or `last`.")] = None,
    csv: Annotated[bool, Parameter(negative="", help="Print CSV.")] = False,
    parquet: Annotated[Path | None, Parameter(help="Write the result to this Parquet file.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Ask SQL of the views `runs`, `streams`, `rails`, `power`, `events`, `requests`, `phases`, `phase_rails`,
    `tokens`, `gaps`, `clocks`, `factors`, `oracles`, and one view for every other stream name.
    """
    from melt_stream.analysis.archive import connect
    from melt_stream.run import find

    text = query if query is not None else _typed()
    place = find(options.folder, run).path if run else options.folder
    if not place.exists():
        raise ConfigError(
            f"expected an archive at {place}, got no such folder; record a run or give --archive"
        )
    table = _ask(connect(place, text), text)
    if parquet is not None:
        _write(table, parquet)
    elif csv:
        _print_csv(table)
    elif options.json:
        print_json(table.to_pylist())
    else:
        _print(table)


def _typed() -> str:
    if sys.stdin.isatty():
        say("SQL, ended by Ctrl-D:")
    return sys.stdin.read()


def _ask(connection: Any, text: str) -> pa.Table:
    import duckdb

    try:
        return connection.sql(text).to_arrow_table()
    except duckdb.ProgrammingError as exc:
        raise ConfigError(f"SQL: {exc}") from exc
    except duckdb.Error as exc:
        raise DataError(f"SQL: {exc}") from exc


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path)
    say(f"{table.num_rows} rows in {path}")


def _print_csv(table: pa.Table) -> None:
    import csv

    writer = csv.writer(sys.stdout)
    writer.writerow(table.column_names)
    for batch in table.to_batches(max_chunksize=10_000):
        writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def _print(table: pa.Table) -> None:
    shown = table.slice(0, SHOWN_ROWS)
    print_table("", table.column_names, [list(row.values()) for row in shown.to_pylist()])
    if table.num_rows > SHOWN_ROWS:
        say(f"{SHOWN_ROWS} of {table.num_rows} rows; --csv, --json or --parquet gives all")

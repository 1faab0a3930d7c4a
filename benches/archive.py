"""How soon an archive of 1,000 runs answers, beside DuckDB that finds the files and unites their columns by name.

Every time is that of a new connection's first answer; with the catalogue's cache there, and once without.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benches import made_up
from benches.figures import Figure, Target, at_most
from benches.measure import Effort, in_turn, ratios, walls
from benches.recording import scratch
from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.manifest import NAME
from melt_stream.run import Run

REACH = at_most(0.3)
QUERIES: dict[str, tuple[str, Target | None]] = {
    "joules of every run's decode": (
        "select run, sum(joules), sum(tokens) from phases where phase = 'decode' group by run order by run",
        REACH,
    ),
    "the ten dearest tokens": (
        "select run, request, index, joules from tokens order by joules desc, run, index limit 10",
        REACH,
    ),
    "samples a run": ("select run, count(*) from power group by run order by run", None),
}
GLOBS = {"phases": "phases.parquet", "tokens": "tokens.parquet", "power": "meter.power.parquet"}


def run(effort: Effort) -> Iterator[Figure]:
    """Make the archive, then ask."""
    runs = effort.pick(1_000, 20)
    with scratch() as archive:
        fill(archive, runs)
        without = in_turn({"first": lambda: _without_cache(archive)}, effort.rounds, warm_up=False)["first"]
        yield Figure(f"{runs:,} runs, no cache yet: joules of every run's decode", walls(without), "s")
        for what, (query, target) in QUERIES.items():
            ours, theirs = answers(archive, query), globbed(archive, query)
            if ours != theirs:
                raise ValueError(f"expected the same answer to {query!r}, got {ours[:2]} and {theirs[:2]}")
            times = in_turn(
                {"ours": lambda q=query: answers(archive, q), "glob": lambda q=query: globbed(archive, q)},  # type: ignore[misc]
                effort.rounds,
            )
            yield Figure(f"{runs:,} runs: {what}", walls(times["ours"]), "s", target)
            yield Figure(
                f"{runs:,} runs: {what}, DuckDB globbing / ours",
                ratios(walls(times["glob"]), walls(times["ours"])),
                "x",
            )


def answers(archive: Path, query: str) -> list[tuple[object, ...]]:
    """Ask as ``melt-stream sql`` does."""
    with connect(archive, query) as connection:
        return connection.sql(query).fetchall()


def globbed(archive: Path, query: str) -> list[tuple[object, ...]]:
    """Ask DuckDB as one would without us: every run's file by a pattern, the run's id from its folder."""
    with duckdb.connect() as connection:
        for view, file in GLOBS.items():
            if f"from {view}" in query:
                star = "* exclude (run)" if view != "power" else "*"
                connection.execute(
                    f"create view {view} as select {star}, split_part(filename, '/', -2) as run "
                    f"from read_parquet('{archive}/*/{file}', union_by_name=true, filename=true)"
                )
        return connection.sql(query).fetchall()


def fill(archive: Path, runs: int) -> None:
    """Make one run of 5 s properly, and the others as its copies, under ids, and with derived rows, of their own."""
    first = pack(made_up.make(archive, 5_000).path)
    tables = {name: first.table(name) for name in first.manifest.tables}
    for number in range(1, runs):
        copy(first, tables, archive / f"{first.id}{number:04x}")


def copy(run: Run, tables: Mapping[str, pa.Table], folder: Path) -> None:
    """Copy a packed run so that it has its new name in every place that says it; nothing is synced."""
    folder.mkdir()
    (folder / "lock").touch()
    for stored in run.manifest.streams.values():
        shutil.copyfile(run.path / stored.file, folder / stored.file)
    for name, table in tables.items():
        at = table.schema.get_field_index("run")
        said = pa.array([folder.name] * len(table), pa.utf8())
        renamed = table.set_column(at, table.schema.field(at), said)
        pq.write_table(renamed, folder / run.manifest.tables[name].file)
    manifest = replace(run.manifest, id=folder.name)
    (folder / NAME).write_text(json.dumps(asdict(manifest), indent=1))


def _without_cache(archive: Path) -> None:
    (archive / ".catalogue.json").unlink(missing_ok=True)
    answers(archive, QUERIES["joules of every run's decode"][0])

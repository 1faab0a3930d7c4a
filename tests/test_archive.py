"""SQL over runs: the views, what they cost, and what a query from outside may not do."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melt_stream.analysis import archive, catalogue, relations
from melt_stream.analysis.archive import VIEWS, connect, views
from melt_stream.analysis.build import build
from melt_stream.analysis.encode import sql_type
from melt_stream.analysis.pack import pack
from melt_stream.analysis.sandbox import inspect, opened
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.errors import ConfigError
from melt_stream.lock import locked
from melt_stream.outlet import Hub
from melt_stream.run import Run, create
from melt_stream.sinks.journal import Journal
from melt_stream.stream import Stream
from melt_stream.units import Unit
from tests.recorded import RAILS, batches, record

NS = 10**9


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """An archive of a packed run and one that was killed; tests only read it."""
    place = tmp_path_factory.mktemp("archive")
    pack(record(place, name="first", tags=["a", "b"]).path)
    record(place, end=False)
    return place


def ask(place, query: str) -> list[dict]:
    return connect(place, query).sql(query).to_arrow_table().to_pylist()


def columns(place, view: str) -> dict[str, str]:
    return {row["column_name"]: row["column_type"] for row in ask(place, f"DESCRIBE {view}")}


def test_a_killed_run_answers(two):
    rows = ask(
        two,
        "SELECT run, count(*) AS n, max(joules) AS j FROM power WHERE rail = 'gpu' GROUP BY run ORDER BY run",
    )
    assert [(row["n"], round(row["j"], 9)) for row in rows] == [(400, 7.98)] * 2
    assert [row["exit"] for row in ask(two, "SELECT exit FROM runs ORDER BY run")] == ["done", "interrupted"]


def test_a_run_that_is_being_recorded_shows_the_rows_so_far(tmp_path):
    folder = record(tmp_path, end=False)
    with locked(folder.path):
        connection = connect(folder.path)
        assert connection.sql("SELECT state FROM runs").fetchall() == [("recording",)]
        assert connection.sql("SELECT count(*), max(joules) FROM power WHERE rail = 'soc'").fetchall()[0] == (
            400,
            11.97,
        )
        snapshot = Path(connection.sql("SELECT file FROM _files LIMIT 1").fetchall()[0][0]).parent
        assert snapshot.exists()
        del connection
    assert not snapshot.exists()
    assert Run(folder.path).state == "interrupted"  # looking at it changed nothing


def test_a_journal_that_grows_while_it_is_looked_at_is_shown_as_it_was(tmp_path):
    flushes = batches(0)
    folder = create(tmp_path, recipe={})
    journal = Journal(folder)
    journal.write(flushes[0])
    seen = []

    def growing(name: str, rows: int) -> None:
        seen.append((name, rows))
        if len(seen) == 1:  # the first stream is made; the others were read once
            journal.write(flushes[1])

    aside = tmp_path / "aside"
    aside.mkdir()
    built = build(Run(folder.path), aside, progress=growing)
    assert {key: stored.rows for key, stored in built.streams.items()} == {
        "app.events": 8, "heat.thermal": 1, "meter.power": 300, "run.facts": 1, "run.rails": 4, "run.readings": 2,
        "usb.energy": 100,
    }  # fmt: skip
    assert Run(folder.path).table("meter.power").num_rows == 600


@pytest.mark.parametrize("view", VIEWS)
def test_views_exist_without_a_run_with_the_same_columns(tmp_path, two, view):
    assert columns(tmp_path, view) == columns(two, view)
    assert ask(tmp_path, f"FROM {view}") == []


@pytest.mark.parametrize("view", [*VIEWS, "stream"])
def test_the_sql_documents_every_column(two, view):
    text = (Path(archive.__file__).parent / "views" / f"{view}.sql").read_text()
    assert text.startswith("-- ")
    if view == "stream":
        return
    said = re.findall(r'^    "?(\w+)"?,? +-- (\S+) +\S', text, re.MULTILINE)
    assert dict(said) == columns(two, view)
    if view in SCHEMAS:
        assert said == [(f.name, sql_type(f.type)) for f in SCHEMAS[view]]


def test_power_is_in_watts_whatever_the_stream_holds(tmp_path):
    from melt_stream.rail import Rail

    hub = Hub(now=lambda: 0)
    for instance, unit, kind, values in (
        ("a", {"volts": Unit("mV"), "amps": Unit("uA")}, "gauge", {"volts": [5000.0], "amps": [2e6]}),
        ("b", {"energy": Unit("mJ")}, "delta", {"energy": [100.0]}),
        ("c", {"energy": Unit("J")}, "counter", {"energy": [3.0]}),
    ):
        out, stream = hub.outlet(instance), Stream("s", period_ns=1e7, **unit)
        out.rail(stream, Rail("r", "board", kind))
        out.rows(stream, tick=np.array([0]), **{name: np.array(v) for name, v in values.items()})
    pack(record(tmp_path, [hub.take()], imported="x").path)
    rows = ask(tmp_path, "SELECT sensor, rail, boundary, watts, amps, volts FROM power ORDER BY sensor")
    assert [tuple(row.values()) for row in rows] == [
        ("a.s", "r", "board", 10.0, 2.0, 5.0),
        ("b.s", "r", "board", 10.0, None, None),
        ("c.s", "r", "board", None, None, None),
    ]


def test_every_other_stream_has_a_view_with_its_instance(two):
    assert views(two) == [*VIEWS, "energy", "facts", "readings", "thermal"]
    rows = ask(two, "SELECT DISTINCT instance, device, zone FROM thermal")
    assert rows == [{"instance": "heat", "device": "board", "zone": "a"}]
    assert list(columns(two, "thermal")) == [
        "run",
        "instance",
        "device",
        "t",
        "t_ns",
        "tick",
        "zone",
        "celsius",
    ]


def test_events_count_from_the_run_start(two):
    query = (
        "SELECT t_ns, arrival_ns, \"index\", text FROM events WHERE kind = 'token' AND request = 2 ORDER BY 1"
    )
    assert ask(two, query)[0] == {
        "t_ns": 1_200_000_000,
        "arrival_ns": 1_200_001_000,
        "index": 0,
        "text": "é0",
    }


def test_streams_rails_and_runs_come_from_the_manifests(two):
    first = ask(two, "FROM runs ORDER BY run")[0]
    assert (first["name"], first["tags"], first["state"]) == ("first", ["a", "b"], "packed")
    rails = ask(two, "SELECT sensor, rail, gain FROM rails WHERE run = (SELECT min(run) FROM runs)")
    assert rails[0] == {"sensor": "meter.power", "rail": "cpu", "gain": 0.01}
    stream = ask(two, "FROM streams WHERE stream = 'power'")[0]
    assert (stream["instance"], stream["clock"], stream["rows"], stream["lost_rows"]) == (
        "meter",
        "host",
        1200,
        0,
    )
    assert (stream["start_ns"], stream["stop_ns"]) == (0, 3_990_000_000)


def test_one_run_or_some_may_be_asked(two):
    query = "SELECT DISTINCT run FROM power"
    runs = [Run(path) for path in sorted(two.glob("2*"))]
    assert ask(runs[0].path, query) == [{"run": runs[0].id}]
    assert len(ask(runs, query)) == 2


def test_only_the_files_of_one_run_are_read_when_one_is_asked(two):
    query = f"SELECT count(*) FROM power WHERE run = '{Run(min(two.glob('2*'))).id}'"
    assert connect(two, query).sql(query).fetchall()[0] == (1600,)


def test_streams_that_changed_are_put_together_by_meaning(tmp_path):
    for stream, value in ((Stream("s", a=int), {"a": 1}), (Stream("s", a=float, b=Unit("mV")), {"a": 1.5, "b": 2e3}),
                          (Stream("s", b=Unit("V")), {"b": 3.0})):  # fmt: skip
        hub = Hub()
        hub.outlet("x").row(stream, **value)
        pack(record(tmp_path, [hub.take()]).path)
    assert [(r["a"], r["b"]) for r in ask(tmp_path, "SELECT a, b FROM s ORDER BY run")] == [
        (1.0, None), (1.5, 2.0), (None, 3.0)
    ]  # fmt: skip
    hub = Hub()
    hub.outlet("x").row(Stream("s", a=str), a="text")
    run = pack(record(tmp_path, [hub.take()]).path)
    with pytest.raises(
        ConfigError, match=rf"view s: expected one meaning of column 'a', got VARCHAR \[\] in run {run.id}"
    ):
        ask(tmp_path, "FROM s")
    assert ask(run.path, "SELECT a FROM s") == [{"a": "text"}]


def test_energy_between_is_exact_at_its_edges(two):
    query = """SELECT rail, energy_between(run, sensor || '/' || rail, 1_250_000_005, 2_000_000_000) AS j FROM rails
               WHERE run = (SELECT min(run) FROM runs) AND sensor = 'meter.power' ORDER BY rail"""
    assert [row["j"] for row in ask(two, query)] == pytest.approx(
        [0.749999995 * (k + 1) for k in range(len(RAILS))]
    )


def test_energy_between_is_null_where_nothing_was_measured(two):
    run = Run(min(two.glob("2*"))).id
    query = f"SELECT energy_between('{run}', 'cpu', -5, -1), energy_between('{run}', 'cpu', NULL, 5), energy_between('{run}', 'cpu', 5, 5)"
    assert connect(two, query).sql(query).fetchall()[0] == (None, None, None)
    wrong = f"SELECT energy_between('{run}', 'cpux', 0, 5)"
    with pytest.raises(duckdb.Error, match=r"expected one rail of run .*meter\.power/cpu.*got 'cpux'"):
        connect(two, wrong).sql(wrong).fetchall()


def test_energy_between_uses_the_rails_own_clock(two):
    run = Run(min(two.glob("2*"))).id
    query = f"SELECT energy_between('{run}', 'total', 8_000_000_000, 9_000_000_000)"
    assert connect(two, query).sql(query).fetchall()[0][0] == pytest.approx(5.0)


def test_uncertainty_of_a_sum_puts_shared_errors_together(tmp_path):
    """Two rows under one gain of 1 %, one offset of 0.1 W and a clock; and noise of their own."""
    run = pack(record(tmp_path, []).path)
    keys = {"run": run.id, "device": "d", "sensor": "s", "rail": "r"}
    phases = [
        {**keys, "phase": "decode", "request": request, "joules": joules, "seconds": 2.0, "joules_per_clock": sign * 3.0,
         "joules_var": 0.04}
        for request, joules, sign in ((1, 10.0, 1), (2, 20.0, -1))
    ]  # fmt: skip
    factors = [
        {**keys, "factor": name, "kind": name, "applies": "both", "u": u, "unit": unit, "request": None}
        for name, u, unit in (("gain", 0.01, "1"), ("offset", 0.1, "W"), ("clock", 0.5, "s"))
    ]
    for name, rows in (("phases", phases), ("factors", factors)):
        table = pa.Table.from_pylist(rows, SCHEMAS[name])
        pq.write_table(table, run.stored(name))
        run.manifest.tables[name].rows = len(rows)
    run.manifest.save(run.path)
    both = "SELECT phase, joules_u_of(p) AS u FROM phases p GROUP BY phase"
    assert ask(tmp_path, both)[0]["u"] == pytest.approx(np.sqrt(0.3**2 + 0.4**2 + 0.0**2 + 0.08))
    one = "SELECT joules_u_of(phases) AS u FROM phases WHERE request = 1"
    assert ask(tmp_path, one)[0]["u"] == pytest.approx(np.sqrt(0.1**2 + 0.2**2 + 1.5**2 + 0.04))
    named = """SELECT joules_u_of(run, device, sensor, rail, request, joules, seconds, joules_per_clock, joules_var) AS u
               FROM phases WHERE request = 1"""
    assert ask(tmp_path, named) == ask(tmp_path, one)
    assert ask(tmp_path, "SELECT joules_u_of(p) AS u FROM phases p WHERE false") == [{"u": None}]


REFUSED = [
    "COPY (SELECT 1) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
    "COPY runs TO '{place}/x.csv'",
    "ATTACH '{place}/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL enable_logging()",
    "EXPORT DATABASE '{place}/x'",
    "IMPORT DATABASE '{place}/x'",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW runs",
    "INSERT INTO _runs SELECT * FROM _runs",
    "DELETE FROM _runs",
    "SELECT 1; DROP VIEW runs",
    "EXPLAIN ANALYZE SELECT 1",
    "CHECKPOINT",
    "VACUUM",
    "USE memory",
    "PREPARE v AS SELECT 1",
    "BEGIN",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{place}/log')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM (SELECT * FROM copy_database('a', 'b'))",
    "WITH x AS (FROM read_json('/etc/passwd')) FROM x",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "SELECT write_log('x')",
    "not SQL at all",
    "",
]


@pytest.mark.parametrize("query", REFUSED)
def test_a_query_from_outside_may_only_select(two, query):
    before = {path: path.stat().st_mtime_ns for path in two.rglob("*") if path.name != ".catalogue.json"}
    file = next(two.glob("2*/thermal.parquet"), next(two.glob("2*/*.parquet")))
    with pytest.raises(ConfigError, match="SQL: "):
        connect(two, query.format(place=two, file=file))
    assert {
        path: path.stat().st_mtime_ns for path in two.rglob("*") if path.name != ".catalogue.json"
    } == before


@pytest.mark.parametrize(
    "query",
    [
        "FROM '/etc/passwd'", "FROM '{file}'", "FROM frame", "FROM read_parquet('{file}')", "FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '{place}/x.csv'", "COPY (SELECT 1) TO '{other}'", "ATTACH '{place}/x.db'", "INSTALL httpfs",
        "SET enable_external_access = true", "SET memory_limit = '1TB'", "SET threads = 99", "FROM nowhere",
    ],
)  # fmt: skip
def test_the_connection_itself_reaches_nothing_else(two, query):
    """Without the look at the query beforehand: the second wall."""
    frame = pa.table({"x": [1]})
    connection = connect(two, "FROM thermal")
    file, other = next(two.glob("2*/phases.parquet")), next(two.glob("2*/heat.thermal.parquet"))
    assert frame.num_rows == 1
    with pytest.raises(duckdb.Error):
        connection.sql(query.format(place=two, file=file, other=other)).fetchall()


def test_what_a_query_names_is_found_by_the_parser():
    query = """WITH x AS (SELECT * FROM tokens) SELECT joules_u_of(p) FROM x, Phases p ASOF JOIN power w USING (t_ns)
               WHERE a IN (SELECT b FROM "gaps") AND 'FROM runs' = c -- FROM clocks"""
    with opened() as parser:
        named = inspect(query, parser)
    assert named.tables >= {"tokens", "phases", "power", "gaps"}
    assert not named.tables & {"runs", "clocks"}
    assert "joules_u_of" in named.functions


def test_only_the_views_a_query_names_are_made(two):
    connection = connect(two, "SELECT * FROM phases")
    assert [
        name
        for (name,) in connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    ] == ["phases"]
    assert len(ask(two, "SHOW TABLES")) > len(VIEWS)


def test_asking_for_runs_packs_nothing(tmp_path):
    folder = record(tmp_path, end=False)
    assert ask(tmp_path, "SELECT state FROM runs") == [{"state": "interrupted"}]
    assert Run(folder.path).state == "interrupted"


def test_memory_and_threads_are_bounded(two):
    connection = connect(two, "FROM runs")
    settings = dict(connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    memory, unit = settings["memory_limit"].split()
    assert (unit, float(memory) <= 4) if unit == "GiB" else (unit == "MiB")
    assert int(settings["threads"]) <= 8
    assert (settings["enable_external_access"], settings["python_enable_replacements"]) == ("false", "false")


def test_the_catalogue_is_a_cache_and_nothing_more(two, monkeypatch):
    said = catalogue.overview(two)
    assert [row["exit"] for row in said] == ["done", "interrupted"]
    read = []
    real = catalogue.checked
    monkeypatch.setattr(catalogue, "checked", lambda path: read.append(path) or real(path))
    assert catalogue.overview(two) == said
    assert read == []
    (two / ".catalogue.json").write_text("[broken")
    assert catalogue.overview(two) == said
    assert len(read) == 2
    Run(min(two.glob("2*"))).note("new")
    assert catalogue.overview(two)[0]["note"] == "new"
    Run(min(two.glob("2*"))).note("")
    entry = catalogue.catalogue(two)[0]
    assert entry["streams"] == {k: v.__dict__ for k, v in Run(Path(entry["path"])).manifest.streams.items()}


def test_a_run_that_is_changed_added_or_removed_is_seen_by_the_next_query(tmp_path):
    def runs() -> list[tuple[str, str]]:
        said = [(row["run"], row["note"]) for row in ask(tmp_path, "SELECT run, note FROM runs ORDER BY run")]
        rows = ask(tmp_path, "SELECT run, count(*) AS n FROM power GROUP BY run ORDER BY run")
        assert [(row["run"], row["n"]) for row in rows] == [(run, 1600) for run, _ in said]
        assert [(row["run"], row["note"]) for row in catalogue.overview(tmp_path)] == said
        return said

    first = pack(record(tmp_path).path)
    assert runs() == [(first.id, "")]
    second = pack(record(tmp_path).path)
    assert runs() == [(first.id, ""), (second.id, "")]
    first.note("one")
    assert runs() == [(first.id, "one"), (second.id, "")]
    first.note("two")  # as long as before
    assert runs() == [(first.id, "two"), (second.id, "")]
    shutil.rmtree(first.path)
    assert runs() == [(second.id, "")]


@pytest.mark.parametrize(("part", "damage"), [("streams", "[[7]]"), ("id", "["), ("tables.phases", "[]")])
def test_a_damaged_part_of_the_cache_is_made_again(tmp_path, part, damage):
    pack(record(tmp_path).path)
    whole = catalogue.catalogue(tmp_path)
    cache = tmp_path / ".catalogue.json"
    head, *lines = cache.read_text().split("\n")
    lines[json.loads(head)["parts"].index(part)] = damage
    cache.write_text("\n".join([head, *lines]))
    assert catalogue.catalogue(tmp_path) == whole


def test_a_part_of_the_catalogue_is_what_all_of_it_says(two):
    connect(two, "FROM power")  # packs what is not packed
    all_of_it = catalogue.catalogue(two)  # and keeps it
    for entry, whole in zip(catalogue.catalogue(two, {"rails", "tables.phases"}), all_of_it, strict=True):
        assert entry.pop("tables") == {"phases": whole["tables"]["phases"]}
        assert "rails" in entry
        assert "streams" not in entry
        assert entry.items() <= whole.items()


def test_files_with_the_same_columns_are_read_together(two):
    connect(two, "FROM power")  # packs what is not packed
    files = relations.streams_of(catalogue.catalogue(two))
    assert (
        relations.stream("thermal", [f for f in files if f.key == "heat.thermal"], relations.Lists()).count(
            "read_parquet"
        )
        == 1
    )


def test_an_archive_that_cannot_be_written_is_still_read(two, tmp_path, monkeypatch):
    from melt_stream.analysis import archive as module

    folder = record(tmp_path, batches(0), end=False)

    def read_only(path):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(module, "pack", read_only)
    assert ask(tmp_path, "SELECT count(*) AS n FROM thermal") == [{"n": 4}]
    assert Run(folder.path).state == "interrupted"

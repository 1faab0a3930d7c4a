"""pack: journals become sorted Parquet, bit for bit, whatever state the run is in."""

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from melt_stream.analysis import build, encode
from melt_stream.analysis.export import export
from melt_stream.analysis.pack import pack
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.clock import Clock
from melt_stream.errors import ConfigError, DataError
from melt_stream.lock import Locked, locked
from melt_stream.outlet import Hub
from melt_stream.rail import Rail
from melt_stream.run import Run
from melt_stream.stream import Column, Stream
from melt_stream.units import Unit, W
from tests.recorded import RAILS, batches, record

NS = 10**9


def test_raw_columns_come_out_bit_for_bit_and_sorted_by_rail(tmp_path):
    folder = record(tmp_path)
    journaled = Run(folder.path)
    before = {key: journaled.table(key) for key in journaled.keys()}  # noqa: SIM118 - a run is no mapping
    run = pack(folder.path)
    assert (run.state, run.manifest.damage) == ("packed", {})
    for key, table in before.items():
        packed, wanted = run.table(key, table.column_names), table
        if key == "meter.power":
            wanted = pa.concat_tables(table.filter(pc.equal(table["rail"], name)) for name in sorted(RAILS))
        assert packed.equals(wanted), key
        assert run.schema(key).metadata.items() >= table.schema.metadata.items()
        assert [run.schema(key).field(f.name).metadata for f in table.schema] == [
            f.metadata for f in table.schema
        ]


def test_nan_payloads_and_negative_zero_survive(tmp_path):
    odd = np.array([0x7FF8000000000001, 0x7FF0000000000000, 1 << 63, 0], np.uint64).view(np.float64)
    hub = Hub()
    hub.outlet("m").rows(Stream("s", watts=W), tick=np.arange(4), watts=odd)
    run = pack(record(tmp_path, [hub.take()]).path)
    assert run.table("m.s")["watts"].to_numpy().view(np.uint64).tolist() == odd.view(np.uint64).tolist()


def test_row_groups_never_mix_rails(tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "ROWS", 150)
    run = pack(record(tmp_path).path)
    with pq.ParquetFile(run.stored("meter.power")) as file:
        rails = [set(file.read_row_group(i)["rail"].to_pylist()) for i in range(file.num_row_groups)]
    assert [len(found) for found in rails] == [1] * 9
    assert sorted(rails, key=min) == rails


def test_times_and_running_joules_are_derived(tmp_path):
    folder = record(tmp_path)
    run = pack(folder.path)
    power = run.table("meter.power").to_pandas()
    assert (power["t_ns"] == power["tick"] - folder.manifest.start_ns).all()
    for k, name in enumerate(sorted(RAILS)):
        mine = power[power["rail"] == name]
        assert mine["joules"].to_numpy() == pytest.approx((k + 1) * mine["t_ns"].to_numpy() / NS, abs=1e-9)
        assert (mine["covered_ns"] == mine["t_ns"]).all()
    usb = run.table("usb.energy").to_pandas()
    assert np.abs(usb["t_ns"] - (usb["tick"] * 1000 + 7 * NS)).max() <= 1000  # by the clock's readings
    assert usb["joules"].iloc[-1] == pytest.approx(5 * 3.99)
    assert run.manifest.streams["usb.energy"].stop_ns == usb["t_ns"].max()


def test_rows_that_came_late_get_the_energy_of_their_tick(tmp_path):
    """A counter read by two threads: ticks are not in order in the file, and stay so."""
    hub = Hub(now=lambda: 0)
    out, stream = hub.outlet("m"), Stream("s", watts=W, period_ns=1e9)
    out.rail(stream, Rail("r", "board", "gauge"))
    out.rows(stream, tick=np.array([0, 2, 1, 3]) * NS, watts=np.array([0.0, 2.0, 1.0, 3.0]))
    run = pack(record(tmp_path, [hub.take()]).path)
    assert run.table("m.s")["tick"].to_pylist() == [0, 2 * NS, NS, 3 * NS]
    assert run.table("m.s")["joules"].to_pylist() == [0.0, 2.0, 0.5, 4.5]


def test_a_missing_count_has_no_running_joules(tmp_path):
    hub = Hub(now=lambda: 0)
    out, stream = hub.outlet("m"), Stream("s", energy=Column(Unit("J"), pa.int64()), period_ns=1e9)
    out.rail(stream, Rail("r", "board", "counter"))
    out.rows(stream, tick=np.arange(6) * NS, energy=pa.array([1, 2, None, 4, 5, 6]))
    run = pack(record(tmp_path, [hub.take()]).path)
    assert [j is None for j in run.table("m.s")["joules"].to_pylist()] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert run.table("m.s")["joules"][5].as_py() == 5.0


def test_a_clock_without_readings_places_nothing(tmp_path):
    hub = Hub(now=lambda: 0)
    hub.outlet("m").row(Stream("s", clock=Clock("dead"), watts=W), tick=5, watts=1.0)
    run = pack(record(tmp_path, [hub.take()]).path)
    assert run.table("m.s").to_pylist() == [{"tick": 5, "epoch": 0, "watts": 1.0, "t_ns": None}]
    assert (run.manifest.streams["m.s"].rows, run.manifest.streams["m.s"].start_ns) == (1, None)


@pytest.mark.parametrize("read", [duckdb, pl, pq], ids=lambda m: m.__name__)
def test_everybody_reads_it(tmp_path, read):
    run = pack(record(tmp_path).path)
    for key, stored in {**run.manifest.streams, **run.manifest.tables}.items():
        path = str(run.stored(key))
        if read is duckdb:
            with duckdb.connect() as connection:
                rows = len(connection.execute(f"FROM '{path}'").fetchall())
        else:
            rows = len(read.read_parquet(path) if read is pl else read.read_table(path))
        assert rows == stored.rows


def test_encodings_are_those_that_were_measured(tmp_path):
    run = pack(record(tmp_path).path)
    with pq.ParquetFile(run.stored("meter.power")) as file:
        group = file.metadata.row_group(0)
        found = {
            c.path_in_schema: set(c.encodings) for c in (group.column(i) for i in range(group.num_columns))
        }
        assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
    for name in ("tick", "t_ns", "covered_ns"):
        assert "DELTA_BINARY_PACKED" in found[name]
    assert "BYTE_STREAM_SPLIT" in found["joules"]
    assert "RLE_DICTIONARY" in found["rail"]


def test_noise_is_split_and_steps_are_a_dictionary():
    noise = np.random.default_rng(1).normal(size=50_000)
    table = pa.table({"noise": noise, "steps": np.round(noise, 1), "count": np.arange(50_000) * 7})
    assert encode.encodings(table) == {
        "noise": "BYTE_STREAM_SPLIT",
        "steps": "dictionary",
        "count": "DELTA_BINARY_PACKED",
    }


def test_the_manifest_says_what_there_is(tmp_path):
    folder = record(tmp_path)
    run = pack(folder.path)
    power = run.manifest.streams["meter.power"]
    assert (power.rows, power.device, power.instance, power.clock) == (1200, "board", "meter", "host")
    assert power.columns.startswith(
        "tick BIGINT,rail VARCHAR,watts DOUBLE mW,volts DOUBLE V,t_ns BIGINT ns,joules"
    )
    assert sorted(run.manifest.tables) == sorted(SCHEMAS)
    assert [rail["name"] for rail in run.manifest.rails] == [*RAILS, "total"]
    assert run.manifest.facts[0]["name"] == "serial"
    assert run.manifest.generation == 1
    assert not (run.path / "journal").exists()
    assert {p.name for p in run.path.iterdir()} == {
        "manifest.json", "lock", *(s.file for s in (*run.manifest.streams.values(), *run.manifest.tables.values()))
    }  # fmt: skip


def test_an_interrupted_run_packs_what_is_there(tmp_path):
    folder = record(tmp_path, end=False)
    journal = folder.journal / "meter.power.arrows"
    journal.write_bytes(journal.read_bytes()[:-300] + bytes(5000))
    run = pack(folder.path)
    assert run.manifest.exit["reason"] == "interrupted"
    assert run.manifest.streams["meter.power"].rows == 900
    assert list(run.manifest.damage) == [
        "app.events", "heat.thermal", "meter.power", "run.facts", "run.rails", "run.readings", "usb.energy"
    ]  # fmt: skip
    assert "checksum" in run.manifest.damage["meter.power"] or "torn" in run.manifest.damage["meter.power"]
    assert "no end marker" in run.manifest.damage["heat.thermal"]
    assert run.manifest.stop_ns - run.manifest.start_ns == run.manifest.streams["usb.energy"].stop_ns


def test_rows_that_a_finished_run_lost_are_counted(tmp_path):
    folder = record(tmp_path)
    journal = folder.journal / "meter.power.arrows"
    damaged = bytearray(journal.read_bytes())
    damaged[-3000] ^= 4
    journal.write_bytes(damaged)
    (folder.journal / "heat.thermal.arrows").unlink()
    run = pack(folder.path)
    assert "900 of 1200 rows are there" in run.manifest.damage["meter.power"]
    assert run.manifest.streams["meter.power"].lost_rows == 300
    assert "missing" in run.manifest.damage["heat.thermal"]


def test_an_unreadable_schema_costs_that_stream_only(tmp_path):
    folder = record(tmp_path)
    (folder.journal / "heat.thermal.arrows").write_bytes(b"junk" * 100)
    run = pack(folder.path)
    assert "heat.thermal" not in run.manifest.streams
    assert "nothing readable" in run.manifest.damage["heat.thermal"]


def test_an_empty_run_packs(tmp_path):
    run = pack(record(tmp_path, []).path)
    assert (run.keys(), run.state) == ([], "packed")
    assert {name: run.table(name).num_rows for name in SCHEMAS}["phases"] == 0


def test_a_run_that_is_recorded_is_left_alone(tmp_path):
    folder = record(tmp_path, end=False)
    with locked(folder.path), pytest.raises(Locked):
        pack(folder.path)
    assert Run(folder.path).state == "interrupted"


def test_again_derives_anew_from_the_same_raw_columns(tmp_path):
    first = pack(record(tmp_path).path)
    before = {key: first.table(key) for key in (*first.keys(), *first.manifest.tables)}
    again = pack(first.path, again=True)
    assert again.manifest.generation == 2
    assert again.manifest.streams["meter.power"].file == "meter.power.2.parquet"
    for key, table in before.items():
        assert again.table(key).equals(table), key
    assert not list(first.path.glob("meter.power.parquet"))
    assert pack(first.path).manifest.generation == 2  # without again: nothing to do


def test_a_file_that_reads_back_otherwise_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    folder = record(tmp_path)
    real = encode.ParquetFile.write

    def dropping_a_bit(self, batch):
        if "celsius" in batch.schema.names:
            column = pc.add(batch.column("celsius"), 2**-40)
            batch = batch.set_column(2, batch.schema.field("celsius"), column)
        real(self, batch)

    monkeypatch.setattr(build.ParquetFile, "write", dropping_a_bit)
    with pytest.raises(
        DataError, match=r"heat\.thermal\.parquet: expected the raw columns that were written"
    ):
        pack(folder.path)
    monkeypatch.undo()
    assert Run(folder.path).state == "finished"
    assert pack(folder.path).state == "packed"


def test_a_stream_restarted_with_its_rails_has_each_once(tmp_path):
    flushes = batches(0, 1) + batches(NS, 1)
    run = pack(record(tmp_path, flushes).path)
    assert [rail["name"] for rail in run.manifest.rails] == [*RAILS, "total"]


def test_export_writes_csv_and_exact_parquet(tmp_path):
    folder = record(tmp_path / "archive")
    with pytest.raises(ConfigError, match="expected a packed run"):
        export(Run(folder.path), tmp_path / "out")
    run = pack(folder.path)
    files = export(run, tmp_path / "out", format="csv") + export(run, tmp_path / "out", format="parquet")
    assert len(files) == 2 * (len(run.keys()) + len(SCHEMAS))
    text = (tmp_path / "out/heat.thermal.csv").read_text().splitlines()
    assert text[0] == '"tick","zone","celsius","t_ns"'
    assert len(text) == 5
    assert pq.read_table(tmp_path / "out/meter.power.parquet").equals(run.table("meter.power"))
    assert (tmp_path / "out/phases.csv").read_text().startswith('"run","request"')

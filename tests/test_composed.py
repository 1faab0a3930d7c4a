"""Views made of others: what a request was like, and how a run went over time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melt_stream.analysis.archive import connect, views
from melt_stream.analysis.encode import described
from melt_stream.manifest import Stored
from tests import packed_run

S = 1_000_000_000


def asked(run, query):
    return connect(run.path, query).sql(query).to_arrow_table().to_pylist()


def add_stream(run, key, columns):
    """Give a packed run another stream."""
    table = pa.table(columns).replace_schema_metadata({"clock": "host", "tick_ns": "1.0"})
    pq.write_table(table, run.path / f"{key}.parquet")
    instance, _, stream = key.partition(".")
    described = ",".join(
        f"{f.name} {'BIGINT' if pa.types.is_integer(f.type) else 'DOUBLE'} " for f in table.schema
    )
    run.manifest.streams[key] = Stored(
        f"{key}.parquet", len(table), described, instance, stream, "host", "", "host"
    )
    run.manifest.save(run.path)


@pytest.fixture
def run(tmp_path):
    return packed_run.write(
        tmp_path / "run", packed_run.story(gap=None, words=tuple(f" word{n}" for n in range(97)))
    )


def test_a_request_is_told_in_one_row(run):
    rows = asked(
        run, "SELECT q.*, r.joules AS j FROM qoe q JOIN requests r USING (run, request) ORDER BY request"
    )
    assert [row["request"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["stalls"] == 0
        assert row["itl_p50_s"] <= row["itl_p95_s"] <= row["itl_p99_s"]
        assert row["j_per_output_token"] == pytest.approx(row["j"] / row["output_tokens"])
        assert row["j_per_input_token"] == pytest.approx(row["j"] / row["prompt_tokens"])
        assert row["mwh"] == pytest.approx(row["j"] / 3.6)
        assert (row["degenerate"], row["rep4"], row["peak_rss"]) == ("none", 0.0, None)


def test_answers_that_go_round_in_circles_or_say_nothing_are_told(tmp_path):
    circles = packed_run.write(tmp_path / "a", packed_run.story(gap=None))  # six words, again and again
    assert {row["degenerate"] for row in asked(circles, "FROM qoe")} == {"repetition"}
    assert all(row["rep4"] > 0.8 for row in asked(circles, "FROM qoe"))
    silent = packed_run.write(tmp_path / "b", packed_run.story(gap=None, words=(" ",)))
    assert {row["degenerate"] for row in asked(silent, "FROM qoe")} == {"empty"}


def test_a_step_that_takes_long_is_a_stall(tmp_path):
    told = packed_run.story(gap=None)
    late = [token for token in told.tokens if token["request"] == 1 and token["index"] >= 40]
    late[0]["stop_ns"] += 2 * S
    for token in late[1:]:
        token["start_ns"] += 2 * S
        token["stop_ns"] += 2 * S
    first, *others = asked(packed_run.write(tmp_path / "run", told), "FROM qoe ORDER BY request")
    assert (first["stalls"], first["stall_s"]) == (1, pytest.approx(2.03, abs=0.01))
    assert [row["stalls"] for row in others] == [0, 0]


def test_memory_is_the_peak_while_the_request_ran(run):
    t_ns = np.arange(0, 12 * S, S // 10)
    add_stream(run, "watch.process", {"tick": t_ns, "t_ns": t_ns, "rss": 1000 + t_ns // 1_000_000})
    rows = asked(run, "SELECT q.peak_rss, r.stop_ns FROM qoe q JOIN requests r USING (run, request)")
    assert all(row["peak_rss"] == 1000 + row["stop_ns"] // (S // 10) * 100 for row in rows)


def test_a_line_is_laid_through_speed_and_heat(run, tmp_path):
    (row,) = asked(run, "FROM sustained")
    assert (row["requests"], row["device"], row["peak_celsius"]) == (3, "host", None)
    t_ns = np.arange(0, 12 * S, S // 10)
    (
        run.path / "thermal.thermal.parquet"
    ).unlink()  # of another plug-in, which says its temperature otherwise
    del run.manifest.streams["thermal.thermal"]
    add_stream(run, "heat.thermal", {"tick": t_ns, "t_ns": t_ns, "celsius": 40 + t_ns / 60e9})
    (row,) = asked(run, "FROM sustained")
    assert row["celsius_per_min"] == pytest.approx(1.0)
    assert row["start_celsius"] < row["stop_celsius"] == row["peak_celsius"]


def test_they_exist_without_any_run_and_beside_the_others(tmp_path, run):
    assert {"qoe", "sustained"} <= set(views(tmp_path))
    (tmp_path / "none").mkdir()
    for view in ("qoe", "sustained"):
        query = f"SELECT count(*) AS n FROM {view}"
        assert connect(tmp_path / "none", query).sql(query).fetchall() == [(0,)]
    everything = connect(run.path)
    assert everything.sql("SELECT count(*) FROM qoe").fetchall() == [(3,)]


def test_throttling_is_counted_when_it_begins(run):
    t_ns = np.arange(0, 12 * S, S // 10)
    state = np.where((t_ns // S) % 4 >= 2, 3, 0)  # from 2 to 4 s, 6 to 8 s, 10 to 12 s
    add_stream(
        run, "held.throttle", {"tick": t_ns, "t_ns": t_ns, "cooling": ["cpu"] * len(t_ns), "state": state}
    )
    (row,) = asked(run, "SELECT throttle_events, seconds FROM sustained")
    assert row["throttle_events"] == sum(2.8 < begins < 2.8 + row["seconds"] for begins in (2, 6, 10)) > 0


@pytest.mark.parametrize("current", [True, False])
def test_a_phases_charge_is_its_current_or_else_its_energy_over_the_voltage(run, current):
    amps = {"amps": "watts / 4.0"} if current else {}
    path = run.stored("meter.power")
    table = pq.read_table(path)
    meta = table.schema.metadata
    table = table.append_column(
        pa.field("volts", pa.float64(), metadata={"unit": "V"}), pa.array(np.full(len(table), 4.0))
    )
    if amps:
        table = table.append_column(
            pa.field("amps", pa.float64(), metadata={"unit": "A"}), pa.array(table["watts"].to_numpy() / 4.0)
        )
    pq.write_table(table.replace_schema_metadata(meta), path)
    run.manifest.streams["meter.power"].columns = described(table.schema)
    run.manifest.save(run.path)
    rows = asked(
        run,
        "SELECT c.*, p.joules FROM charge c JOIN phases p USING (run, request, phase, device) WHERE phase IN ('prefill', 'decode')",
    )
    assert len(rows) == 6
    for row in rows:
        assert row["how"] == ("current" if current else "energy")
        assert row["volts"] == pytest.approx(4.0)
        assert row["mah"] == pytest.approx(
            row["joules"] / 4.0 / 3.6, rel=0.25 if current else 1e-9
        )  # the made samples ripple

"""Importer llm-profiler: recorded phases with their official figures, an iPhone's gauge, and files that are none."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.collectors.llm_profiler import LlmProfiler
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.session import import_recording
from tests.collectors import importing

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
RECORDED = TRACES / "llm_profiler"
recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason=f"needs the recorded traces in {TRACES} (or $MELT_TRACES)"
)
MERGED = LlmProfiler.example()["tree"]["merged.csv"]
POLLS = [
    {
        "UpdateTime": 1744028643 + 20 * k,
        "Voltage": 3908 - k,
        "AppleRawCurrentCapacity": 1574 - k,
        "AppleRawMaxCapacity": 2755,
    }
    for k in (0, 0, 1, 2)
]


def imported(path):
    return importing.imported(LlmProfiler(path))


@recorded
def test_the_recorded_phases_have_the_official_energies(tmp_path):
    folder = RECORDED / "results" / "xiaomi15pro" / "ours-qwen2_5-1_5b-CPU"
    pack(import_recording("llm-profiler", folder, tmp_path))
    sql = connect(tmp_path)
    each = sql.execute(
        "SELECT request, reported, recomputed, ours FROM oracles WHERE quantity = 'joules' ORDER BY request"
    ).fetchall()
    assert len(each) == 18
    for _, reported, recomputed, ours in each:
        assert recomputed == pytest.approx(reported, rel=1e-5)  # of four digits
        assert ours == pytest.approx(reported, rel=1e-5)
    assert each[0][1] == pytest.approx(0.8376458)
    means = sql.execute("SELECT quantity, reported, recomputed FROM oracles WHERE request IS NULL").fetchall()
    assert {name for name, _, _ in means} == {
        f"{phase}_{what}"
        for phase in ("prefill", "decode")
        for what in ("tokens_per_s", "uah_per_token", "mj_per_token")
    }
    for name, reported, recomputed in means:
        assert recomputed == pytest.approx(reported, abs=1e-4), name
    per_token = sql.execute(
        "SELECT p.phase, avg(1000 * q.joules / p.tokens) FROM requests q JOIN profile p USING (request) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert dict(per_token) == pytest.approx({"decode": 175.1778, "prefill": 18.4086}, abs=1e-3)
    assert sql.execute("SELECT DISTINCT rail, boundary FROM requests").fetchall() == [("battery", "battery")]


@recorded
@pytest.mark.parametrize(("test", "refreshes", "polls"), [("ours", 12, 41), ("mnn", 12, 38)])
def test_the_recorded_gauge_is_its_refreshes_and_no_rail(test, refreshes, polls):
    file = RECORDED / f"ios/monitor/results/iphone14/{test}-qwen2_5-1_5b-CPU/raw.json"
    keep = imported(file)
    rows = keep.rows("it.gauge")
    assert len(rows) == refreshes
    assert {b["tick"] - a["tick"] for a, b in pairwise(rows)} == {20 * 10**9}
    facts = {fact["name"]: json.loads(fact["value"]) for fact in keep.rows("run.facts")}
    assert facts["repeats_left_out"] == polls - refreshes
    told = json.loads(file.read_text())
    assert rows[0]["volts"] == pytest.approx(told[0]["Voltage"] / 1000)
    assert rows[0]["percent"] == pytest.approx(100 * told[0]["Percentage"])
    assert not keep.rows("run.rails")


def test_a_table_without_official_means_has_its_own(tmp_path):
    (tmp_path / "merged.csv").write_text(MERGED)
    keep = imported(tmp_path)
    rows = {row["quantity"]: row for row in keep.rows("it.oracles") if row["request"] is None}
    assert (rows["prefill_mj_per_token"]["reported"], rows["prefill_mj_per_token"]["recomputed"]) == (
        None,
        pytest.approx(12.05),
    )
    assert [row["energy"] for row in keep.rows("it.battery")] == pytest.approx(
        [0, 838.4, 20204.8, 20908.8, 58028.8]
    )
    assert [row["reported"] for row in keep.rows("it.oracles") if row["quantity"] == "joules"] == [None] * 4


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("merged.csv", "", "expected rows below the header, got none"),
        ("merged.csv", "a\n1\n", r"line 2, column prefill_len: expected a number .* got no such column"),
        ("merged.csv", MERGED.replace("320", "x"), r"line 2, column prefill_token_speed: expected a number up to .* got 'x'"),
        ("merged.csv", MERGED.replace("320", "0"), r"line 2: expected prefill_len tokens at a prefill_token_speed above 0"),
        ("merged.csv", MERGED.replace("64,320", "64"), "line 2: expected 8 columns, got 7"),
        ("raw.json", "{}", "expected a list of 1 to 1000000 polls"),
        ("raw.json", "[{}]", "element 0: expected numbers UpdateTime"),
        ("raw.json", json.dumps(POLLS[::-1]), "element 1: expected an UpdateTime that never decreases"),
    ],
)  # fmt: skip
def test_files_that_are_none_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        imported(tmp_path)


def test_a_folder_without_either_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"expected merged\.csv or raw\.json in it, got neither"):
        imported(tmp_path)


def refusal(path):
    try:
        imported(path)
    except DataError as exc:
        return str(exc)
    return ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)
@given(st.text(max_size=40), st.integers(0, 300), st.booleans())
def test_whatever_stands_in_the_files_is_imported_or_refused_with_its_place(tmp_path, junk, at, is_table):
    good, name = (MERGED, "merged.csv") if is_table else (json.dumps(POLLS), "raw.json")
    (tmp_path / name).write_text(good[:at] + junk + good[at:])
    told = refusal(tmp_path / name)
    assert told == "" or ("expected" in told and str(tmp_path) in told)

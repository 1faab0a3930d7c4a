"""Imported recordings, end to end: files -> import -> journal -> pack -> SQL, beside their official results."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.errors import DataError
from melt_stream.harness.session import import_recording
from melt_stream.run import Run, runs
from tests.collectors.written_results import EDGES, LOG, full, write_results, write_trace

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[2] / "shared" / "traces"))
TINY = sorted(path.parent for path in TRACES.glob("mlperf_tiny/*/results.txt"))
XAVIER = TRACES / "mlperf_inference" / "xavier_bert99"
ABSENT = f"needs the recorded traces in {TRACES} (or $MELT_TRACES)"


def imported(kind: str, path: Path, archive: Path) -> Run:
    return pack(import_recording(kind, path, archive))


def query(run: Run, sql: str) -> list[dict]:
    return connect([run], sql).sql(sql).to_arrow_table().to_pylist()


def oracles(run: Run, quantity: str) -> list[dict]:
    return query(run, f"SELECT * FROM oracles WHERE quantity = '{quantity}' ORDER BY request")


def edge_energies(trace: Path, edges: list[float]) -> list[float]:
    """The energy of the two samples of the trace at each edge, J: what a window may differ by there."""
    samples = np.frombuffer(trace.read_bytes()[5:], "<f4").astype(float) * 1e-6
    near = [np.rint(edge * 1000).astype(int) for edge in edges]
    return [float(samples[max(k - 1, 0) : k + 2].max()) for k in near]


def test_ours_lies_within_a_sample_of_the_official_energy_at_each_edge(tmp_path):
    session = tmp_path / "session"
    samples = np.random.default_rng(5).uniform(5, 60, 7000)
    edges = [0.022, 1.1003, 2.4587, 3.626, 4.985]  # two edges within a sample, two between samples
    trace = write_trace(session, samples, 1000.0, edges)
    write_results(session, [(2, edges[1], 1.0, 150), (4, edges[3], 1.0, 150)])
    (session / "log.txt").write_text(LOG)
    rows = oracles(imported("energyrunner", session, tmp_path / "archive"), "joules")
    assert [row["unit"] for row in rows] == ["J", "J"]
    for row, (start, end) in zip(rows, [edges[1:3], edges[3:5]], strict=True):
        assert abs(row["ours"] - row["recomputed"]) <= sum(edge_energies(trace, [start, end]))
        exact = sum(  # sample k covers k to k + 1 ms
            energy * 1e-6 * max(0.0, min(end, (k + 1) / 1000) - max(start, k / 1000)) * 1000
            for k, energy in enumerate(samples.astype(np.float32).tolist())
        )
        assert row["ours"] == pytest.approx(exact, rel=1e-6)


def test_a_window_is_a_request_with_energy_of_the_rail_and_its_boundary(tmp_path):
    write_trace(tmp_path / "session", np.full(7000, 30.0))
    run = imported("energyrunner", tmp_path / "session", tmp_path / "archive")
    rows = query(run, "SELECT name, joules, seconds, coverage, quality FROM requests ORDER BY start_ns")
    assert [row["name"] for row in rows] == ["window 2", "window 4"]
    assert [row["seconds"] for row in rows] == pytest.approx([EDGES[2] - EDGES[1], EDGES[4] - EDGES[3]])
    assert [row["joules"] for row in rows] == pytest.approx([0.03 * 1.358, 0.03 * 1.359])
    assert {(row["coverage"], row["quality"]) for row in rows} == {(1.0, "measured")}
    phases = query(run, "SELECT phase, boundary FROM phases WHERE request IS NOT NULL")
    assert {(row["phase"], row["boundary"]) for row in phases} == {("window", "dc_in")}


def test_mlperf_power_maps_its_window_onto_the_meters_clock(tmp_path):
    result = full(tmp_path / "result")
    rows = oracles(imported("mlperf-power", result.folder, tmp_path / "archive"), "mean_w")
    assert len(rows) == 2
    for row, name in zip(rows, ("ranging", "run_1"), strict=True):
        assert row["recomputed"] == pytest.approx(result.expected(name))
        step = 20.8 - 10.0  # W, at each edge, for at most a second of the window's 80
        assert abs(row["ours"] - row["recomputed"]) <= 2 * step / 80
        # the window begins half a second before a sample that averages the second around it: half of 10 W's sample
        assert row["ours"] != row["recomputed"]


def test_a_damaged_recording_leaves_no_run_behind(tmp_path):
    write_trace(tmp_path / "session", np.ones(10)).write_bytes(b"\xf1")
    with pytest.raises(DataError, match="byte 0"):
        import_recording("energyrunner", tmp_path / "session", tmp_path / "archive")
    assert runs(tmp_path / "archive") == []


@pytest.mark.skipif(not TINY, reason=ABSENT)
@pytest.mark.parametrize("folder", TINY, ids=lambda folder: folder.name)
def test_recorded_energyrunner_windows(tmp_path, folder):
    rows = oracles(imported("energyrunner", folder, tmp_path), "joules")
    edges = json.loads((folder / "trace1-timestamps.json").read_text())
    assert len(rows) == 5
    for k, row in enumerate(rows):
        assert row["recomputed"] == pytest.approx(row["reported"], rel=1e-8)
        near = edge_energies(folder / "trace1-energy.bin", edges[2 * k + 1 : 2 * k + 3])
        assert abs(row["ours"] - row["reported"]) <= sum(near)


@pytest.mark.skipif(not XAVIER.exists(), reason=ABSENT)
def test_recorded_mlperf_power_result(tmp_path):
    run = imported("mlperf-power", XAVIER, tmp_path)
    (row,) = oracles(run, "mean_w")
    assert row["recomputed"] == pytest.approx(18.3625, abs=1e-5 * 18.3625)
    (request,) = query(run, "SELECT joules, seconds, coverage, quality FROM requests WHERE name = 'run_1'")
    assert request["seconds"] == pytest.approx(600.045)
    assert (request["coverage"], request["quality"]) == (1.0, "measured")
    assert abs(row["ours"] * 600.045 - 18.362483 * 600.045) <= 2 * (
        18.6 - 9.5
    )  # the power step at each edge x 1 s
    assert request["joules"] == pytest.approx(row["ours"] * 600.045)

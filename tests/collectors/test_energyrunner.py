"""EnergyRunner sessions: synthetic ones, written here byte by byte, and the recorded ones where they are at hand."""

import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from melt_stream.collectors.energyrunner import EnergyRunner, session_folder
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Hub
from tests.collectors.written_results import EDGES, LOG, write_results, write_trace

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
RECORDED = sorted(TRACES.glob("mlperf_tiny/*/results.txt"))


async def collect(path: Path) -> dict[str, pa.Table]:
    hub = Hub(now=lambda: 0)
    await EnergyRunner(path=path).collect(hub.outlet("er"))
    batches: dict[str, list[pa.RecordBatch]] = {}
    for batch in hub.take():
        batches.setdefault(batch.source.key, []).append(batch.data)
    return {key: pa.Table.from_batches(data) for key, data in batches.items()}


def naive(samples: np.ndarray, rate: float, start: float, end: float) -> tuple[float, int]:
    """The official rule, one sample at a time."""
    t, total, count = 0.0, [], 0
    for energy in samples.astype(np.float32).tolist():
        if start <= t <= end:
            total.append(energy)
            count += 1
        t += 1.0 / rate
    return math.fsum(total), count


@pytest.mark.parametrize("rate", [1000.0, 3000.0, 937.5, 8.0])
async def test_the_official_rule_is_what_a_loop_over_the_samples_gives(tmp_path, rate):
    samples = np.random.default_rng(7).uniform(1, 60, int(6 * rate))
    write_trace(tmp_path, samples, rate)
    got = await collect(tmp_path)
    recomputed = [row for row in got["er.oracles"].to_pylist() if row["quantity"] == "joules"]
    rate = float(np.float32(rate))
    expected = [naive(samples, rate, 1.1, 2.458), naive(samples, rate, 3.626, 4.985)]
    assert [row["recomputed"] for row in recomputed] == pytest.approx(
        [e * 1e-6 for e, _ in expected], rel=1e-12
    )
    power = [row["recomputed"] for row in got["er.oracles"].to_pylist() if row["quantity"] == "mean_w"]
    assert power == pytest.approx([e * 1e-6 / (n / rate) for e, n in expected], rel=1e-12)
    assert all(row["reported"] is None for row in recomputed)


async def test_blocks_of_a_long_trace_are_one_trace(tmp_path):
    samples = np.random.default_rng(1).uniform(0, 5, 700_000)
    write_trace(tmp_path, samples, 1000.0, [0.0, 200.0, 600.0])
    got = await collect(tmp_path)
    assert got["er.trace"].num_rows == 700_000
    assert got["er.trace"].column("tick").to_numpy()[-1] == 699_999_000_000
    times = np.cumsum(np.concatenate(([0.0], np.full(699_999, 1 / 1000.0))))
    counted = samples.astype(np.float32)[(times >= 200.0) & (times <= 600.0)].astype(np.float64)
    assert got["er.oracles"].column("recomputed")[0].as_py() == pytest.approx(counted.sum() * 1e-6, rel=1e-12)


async def test_rows_are_the_files_bits_and_edges_are_exact(tmp_path):
    samples = np.random.default_rng(3).uniform(0, 60, 6000)
    write_trace(tmp_path, samples, 3000.0)
    got = await collect(tmp_path)
    trace = got["er.trace"]
    assert trace.schema.field("energy").type == pa.float32()
    assert trace.schema.field("energy").metadata == {b"unit": b"uJ"}
    assert np.array_equal(trace.column("energy").to_numpy(), samples.astype(np.float32))
    assert trace.column("tick").to_pylist()[:4] == [0, 333_333, 666_667, 1_000_000]
    windows = [(row["kind"], row["tick"], row["name"]) for row in got["er.windows"].to_pylist()]
    assert windows == [
        ("window_start", 1_100_000_000, "window 2"),
        ("window_end", 2_458_000_000, "window 2"),
        ("window_start", 3_626_000_000, "window 4"),
        ("window_end", 4_985_000_000, "window 4"),
    ]
    rail = got["run.rails"].to_pylist()[0]
    assert (rail["kind"], rail["boundary"], rail["anchor"], rail["gain"]) == ("delta", "dc_in", "start", None)
    assert rail["sample_period_ns"] == pytest.approx(1e9 / 3000)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_reported_figures_stand_beside_the_window_they_are_of(tmp_path, newline):
    samples = np.full(6000, 30.0)
    write_trace(tmp_path, samples)
    write_results(tmp_path, [(4, 3.63, 40800.0, 1500), (2, 1.1, 40770.0, 1500)], newline)
    got = await collect(tmp_path)
    window = {row["request"]: json.loads(row["detail"])["window"] for row in got["er.windows"].to_pylist()}
    rows = [
        (window[row["request"]], row["quantity"], row["unit"], row["reported"])
        for row in got["er.oracles"].to_pylist()
    ]
    assert (2, "joules", "J", pytest.approx(0.04077)) in rows
    assert (4, "joules", "J", pytest.approx(0.0408)) in rows
    assert (4, "mean_w", "W", pytest.approx(0.042654123)) in rows
    assert (4, "joules_per_inference", "J", pytest.approx(27.2e-6)) in rows
    each = [row for row in got["er.oracles"].to_pylist() if row["quantity"] == "joules_per_inference"]
    assert each[0]["recomputed"] == pytest.approx(naive(samples, 1000.0, 1.1, 2.458)[0] * 1e-6 / 1500)
    seconds = [row for row in got["er.oracles"].to_pylist() if row["quantity"] == "seconds"]
    assert seconds[0]["recomputed"] == pytest.approx(1.358)


async def test_the_log_is_a_stream_on_the_runs_own_axis_and_bounds_the_traces_clock(tmp_path):
    write_trace(tmp_path, np.full(7000, 30.0))
    (tmp_path / "log.txt").write_bytes(
        LOG.encode() + b"00100.000 io: [dut]: \xff\x06noise\nwithout a stamp\n"
    )
    got = await collect(tmp_path)
    log = got["er.log"].to_pylist()
    assert log[0] == {"tick": 0, "source": "session", "text": "m-session-start-id[20220926152224]"}
    assert (log[-1]["tick"], log[-1]["source"]) == (8_072_000_000, None)
    readings = [
        (row["count"], row["not_before"], row["not_after"], row["kind"])
        for row in got["run.readings"].to_pylist()
    ]
    ms = 1_000_000  # stamps are good to 1 ms: bounds are widened by it
    assert readings[0] == (0, 718 * ms - ms, 754 * ms + ms, "round_trip")
    assert readings[1] == (22 * ms, 755 * ms - ms, 782 * ms + ms, "round_trip")
    assert (1100 * ms, 1765 * ms - ms, None, "cause") in readings
    assert (2458 * ms, None, 3228 * ms + ms, "arrival") in readings
    for count, low, high, _ in readings:  # all of them hold for a trace that began at 750 ms of the log
        assert low is None or low <= count + 750 * ms
        assert high is None or count + 750 * ms <= high
    assert "lpm01a" in got["run.rails"].to_pylist()[0]["source"]
    assert json.loads(got["er.windows"].to_pylist()[0]["detail"]) == {
        "window": 2,
        "inferences": 1500,
        "model": "ad01",
    }
    assert {row["name"]: json.loads(row["value"]) for row in got["run.facts"].to_pylist()}[
        "voltage_mv"
    ] == "1800"


async def test_without_a_log_the_traces_axis_is_the_runs(tmp_path):
    write_trace(tmp_path, np.full(6000, 30.0))
    reading = (await collect(tmp_path))["run.readings"].to_pylist()[0]
    assert (reading["count"], reading["not_before"], reading["not_after"], reading["kind"]) == (
        0,
        0,
        0,
        "exact",
    )


async def test_a_last_edge_without_its_pair_is_a_window_without_an_end(tmp_path):
    write_trace(tmp_path, np.full(6000, 30.0), edges=[*EDGES, 5.5])
    windows = (await collect(tmp_path))["er.windows"].to_pylist()
    assert [row["kind"] for row in windows] == ["window_start", "window_end"] * 2 + ["window_start"]
    assert windows[-1]["tick"] == 5_500_000_000


async def test_without_time_stamps_the_official_figures_stand_alone(tmp_path):
    write_trace(tmp_path, np.full(6000, 30.0))
    (tmp_path / "trace1-timestamps.json").unlink()
    write_results(tmp_path, [(2, 1.1, 40770.0, 1500)])
    got = await collect(tmp_path)
    assert "er.windows" not in got
    rows = {row["quantity"]: row for row in got["er.oracles"].to_pylist()}
    assert (rows["joules"]["request"], rows["joules"]["recomputed"]) == (None, None)
    assert rows["joules"]["reported"] == pytest.approx(0.04077)


async def test_what_is_no_number_is_null_and_a_gap_and_not_zero(tmp_path):
    samples = np.full(6000, 30.0)
    samples[10:13] = np.nan
    samples[20] = np.inf
    write_trace(tmp_path, samples)
    got = await collect(tmp_path)
    assert got["er.trace"].column("energy").null_count == 4
    gaps = [(row["start"], row["stop"]) for row in got["run.gaps"].to_pylist()]
    assert gaps == [(10_000_000, 13_000_000), (20_000_000, 21_000_000)]


async def test_several_traces_are_epochs_of_one_clock(tmp_path):
    for name in ("trace10", "trace2"):
        write_trace(tmp_path, np.full(3000, 30.0), edges=[0.0, 1.0, 2.0], name=name)
    with pytest.raises(DataError, match=r"expected a log\.txt that says when each of 2 traces began"):
        await collect(tmp_path)
    second = LOG.replace("00099.4", "00199.4").replace(
        "[off]", '[off]\n00200.000 parser: Command "emon trace on trace10"\n00200.010 emon: m-trace[on]'
    )
    (tmp_path / "log.txt").write_text(second.replace('trace1"', 'trace2"').replace("00199.406", "00200.406"))
    got = await collect(tmp_path)
    assert got["er.trace"].column("epoch").to_pylist() == [0] * 3000 + [1] * 3000
    starts = [
        (row["epoch_of"], row["not_before"]) for row in got["run.readings"].to_pylist() if row["count"] == 0
    ]
    assert (1, 108_071_000_000) in starts


PERFORMANCE = r"""177779.927 session: m-session-start-id[20220929110241]
177780.441 dut: m-lap-us-95214000
177780.959 dut: m-lap-us-95732000
177796.181 dut: m-lap-us-110953000
177796.711 dut: m-lap-us-111484000
177811.932 dut: m-lap-us-126705000
"""


async def test_a_performance_session_has_windows_by_the_devices_timer_and_no_power(tmp_path):
    (tmp_path / "log.txt").write_text(PERFORMANCE)
    (tmp_path / "results.txt").write_text(
        "177859.181 ulp-mlperf: Performance results for window 2:\n"
        "177859.181 ulp-mlperf:   # Inferences :          200\n"
        "177859.181 ulp-mlperf:   Runtime      :       15.221 sec.\n"
        "177859.181 ulp-mlperf:   Throughput   :       13.140 inf./sec.\n"
    )
    got = await collect(tmp_path)
    assert "run.rails" not in got
    windows = [(row["kind"], row["tick"]) for row in got["er.windows"].to_pylist()]
    assert windows[:2] == [("window_start", 95_732_000), ("window_end", 110_953_000)]
    oracles = {row["quantity"]: (row["reported"], row["recomputed"]) for row in got["er.oracles"].to_pylist()}
    assert oracles["seconds"] == (15.221, pytest.approx(15.221))
    assert oracles["inferences_per_s"] == (13.140, pytest.approx(13.140, rel=1e-3))
    assert {row["kind"] for row in got["run.readings"].to_pylist()} == {"arrival"}


async def test_a_timer_that_starts_again_gets_a_new_epoch(tmp_path):
    (tmp_path / "log.txt").write_text(
        PERFORMANCE.replace("126705000", "205000")
        + "177812.432 dut: m-lap-us-705000\n177827.432 dut: m-lap-us-15705000\n"
    )
    got = await collect(tmp_path)
    windows = [(row["name"], row["epoch"], row["tick"]) for row in got["er.windows"].to_pylist()]
    assert windows[2:] == [
        ("window 4", 0, 111_484_000),
        ("window 4", 1, 205_000),
        ("window 6", 1, 705_000),
        ("window 6", 1, 15_705_000),
    ]
    assert [row["epoch_of"] for row in got["run.readings"].to_pylist()] == [0, 0, 0, 0, 1, 1, 1]


def test_the_session_is_found_below_a_folder_and_several_are_told_apart(tmp_path):
    trace = write_trace(tmp_path / "board" / "kws" / "energy", np.ones(10), edges=[])
    for mode in ("performance", "accuracy"):
        (tmp_path / "board" / "kws" / mode).mkdir()
        (tmp_path / "board" / "kws" / mode / "results.txt").write_text("")
    assert session_folder(tmp_path) == trace.parent
    assert session_folder(trace) == trace.parent
    assert session_folder(tmp_path / "board" / "kws" / "accuracy").name == "accuracy"
    write_trace(tmp_path / "board" / "ic" / "energy", np.ones(10), edges=[])
    with pytest.raises(ConfigError, match=r"got 2: board/ic/energy, board/kws/energy; name one of them"):
        session_folder(tmp_path)


def test_a_folder_without_a_session_says_what_was_looked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"expected one EnergyRunner session .* got none"):
        session_folder(tmp_path)
    with pytest.raises(ConfigError, match="expected a folder, got nothing there"):
        session_folder(tmp_path / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"trace1-energy\.bin, byte 0: expected 0xf1"),
        (b"\xf1\x00\x00", r"byte 0: expected 0xf1"),
        (b"\x00" * 9, r"byte 0: expected 0xf1 and a sample rate, got 00"),
        (b"\xf1" + struct.pack("<f", math.nan), r"byte 1: expected a sample rate"),
        (b"\xf1" + struct.pack("<f", -1), r"byte 1: expected a sample rate"),
        (b"\xf1" + struct.pack("<f", math.inf), r"byte 1: expected a sample rate"),
        (
            b"\xf1" + struct.pack("<ff", 1000, 1) + b"\0\0",
            r"byte 9: expected whole float32 samples, got 2 bytes",
        ),
    ],
)
async def test_a_damaged_trace_is_refused_with_the_byte(tmp_path, content, message):
    write_trace(tmp_path, np.ones(3), edges=[]).write_bytes(content)
    with pytest.raises(DataError, match=message):
        await collect(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trace1-timestamps.json", b"[0.1, 0.2", r"timestamps\.json, line 1, column \d+: expected JSON"),
        ("trace1-timestamps.json", b"[" * 100_000, r"timestamps\.json: expected JSON"),
        ("trace1-timestamps.json", b'{"a": 1}', r"expected an array of up to \d+ seconds, got dict"),
        ("trace1-timestamps.json", b"[0.1, null]", r"element 1: expected a number of seconds"),
        ("trace1-timestamps.json", b"[0.1, true]", r"element 1: expected a number of seconds"),
        ("trace1-timestamps.json", b"[0.1, 1e999999999]", r"element 1: expected a number of seconds"),
        ("trace1-timestamps.json", b"[0.1, NaN]", r"expected JSON, got the constant NaN"),
        ("trace1-timestamps.json", b"[0.5, 0.1]", r"element 1: expected at least 0\.5 s, got 0\.1 s"),
        ("trace1-timestamps.json", b"[-0.5]", r"element 0: expected a number of seconds from 0"),
        ("trace1-timestamps.json", b"[" + b"9" * 10_000 + b"]", r"timestamps\.json"),
        ("log.txt", b"\x00\xff\x00", r"log\.txt, line 1: expected '00012\.345 source: text'"),
        (
            "log.txt",
            b"00002.000 a: b\n00001.000 a: b",
            r"log\.txt, line 2: expected a stamp not before the last one",
        ),
        ("log.txt", b"x" * (17 << 20), r"log\.txt, line 1: expected at most \d+ bytes, got more"),
        (
            "results.txt",
            b"00001.0 u: Energy data for window 8 at time 1.10 for 1 sec.:",
            r"line 1: .* got window 8",
        ),
        (
            "results.txt",
            b"00001.0 u: Energy data for window 2 at time 9.10 for 1 sec.:",
            r"are these files of one run",
        ),
        (
            "results.txt",
            b"00001.0 u: Energy data for window 2 at time 1.10 for 1 sec.:\n00001.0 u:   Energy : 1.2 lbf",
            r"results\.txt, line 2: expected a unit convertible to 'J', got 'lbf'",
        ),
        (
            "results.txt",
            b"00001.0 u: Performance results for window 2:\n00001.0 u:   Runtime : 1e9999 sec.",
            r"results\.txt, line 2: expected a number after 'Runtime', got '1e9999'",
        ),
    ],
)
async def test_a_damaged_file_is_refused_with_the_position(tmp_path, name, content, message):
    write_trace(tmp_path, np.ones(6000))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        await collect(tmp_path)


async def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    write_trace(tmp_path, np.ones(10))
    (tmp_path / "trace1-timestamps.json").unlink()
    os.mkfifo(tmp_path / "trace1-timestamps.json")
    with pytest.raises(DataError, match="something that is not a regular file"):
        await collect(tmp_path)


@pytest.mark.skipif(not RECORDED, reason=f"needs the recorded traces in {TRACES} (or $MELT_TRACES)")
@pytest.mark.parametrize("folder", [path.parent for path in RECORDED], ids=lambda folder: folder.name)
async def test_every_recorded_window_comes_out_by_its_own_rule(folder):
    rows = (await collect(folder))["er.oracles"].to_pylist()
    joules = [row for row in rows if row["quantity"] == "joules"]
    assert len(joules) == 5
    for row in joules:
        assert row["recomputed"] == pytest.approx(row["reported"], rel=1e-8)
    for row in rows:
        if row["quantity"] == "mean_w":
            assert row["recomputed"] == pytest.approx(
                row["reported"], rel=1e-7
            )  # six digits after the point of a uW

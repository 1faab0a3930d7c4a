"""MLPerf power results: synthetic ones, written here, and the recorded one where it is at hand."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from melt_stream.collectors._power_runs import run_folders
from melt_stream.collectors.mlperf_power import MlperfPower
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Hub
from tests.collectors.written_results import DAY_FIRST, MS, Result, full

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
RECORDED = TRACES / "mlperf_inference" / "xavier_bert99"


async def collect(path: Path, **config) -> dict[str, pa.Table]:
    hub = Hub(now=lambda: 0)
    await MlperfPower(path=path, **config).collect(hub.outlet("ml"))
    batches: dict[str, list[pa.RecordBatch]] = {}
    for batch in hub.take():
        batches.setdefault(batch.source.key, []).append(batch.data)
    return {key: pa.Table.from_batches(data) for key, data in batches.items()}


def means(got: dict[str, pa.Table]) -> list[float | None]:
    return [row["recomputed"] for row in got["ml.oracles"].to_pylist() if row["quantity"] == "mean_w"]


def starts(got: dict[str, pa.Table]) -> dict[str, int]:
    return {row["name"]: row["tick"] for row in got["ml.events"].to_pylist() if row["kind"] == "window_start"}


async def test_each_run_is_a_window_on_the_clients_axis_with_its_official_mean(tmp_path):
    result = full(tmp_path)
    got = await collect(tmp_path)
    assert means(got) == pytest.approx([result.expected("ranging"), result.expected("run_1")], rel=1e-12)
    assert starts(got) == {"ranging": 40_000_000_000, "run_1": 210_000_000_000}
    power = got["ml.power"].to_pylist()
    assert len(power) == 200
    assert power[0]["tick"] == pytest.approx(30_500 * MS - 50 * MS, abs=MS)
    ticks = [row["tick"] for row in got["ml.events"].to_pylist()]
    assert ticks == sorted(ticks)
    rail = got["run.rails"].to_pylist()[0]
    assert (rail["kind"], rail["boundary"], rail["window_ns"], rail["anchor"]) == ("mean", "wall", 1e9, "end")
    assert rail["sample_period_ns"] == 1e9
    assert got["ml.power"].schema.field("watts").metadata == {b"unit": b"W"}


async def test_the_servers_readings_hold_for_its_true_offset(tmp_path):
    full(tmp_path)
    readings = [
        row for row in (await collect(tmp_path))["run.readings"].to_pylist() if row["clock_of"] == "ml.server"
    ]
    assert {row["kind"] for row in readings} == {"round_trip", "cause", "arrival"}
    for row in readings:
        host = row["count"] + 50 * MS
        assert row["not_before"] is None or row["not_before"] <= host + 1000
        assert row["not_after"] is None or host <= row["not_after"] + 1000
    assert {row["epoch_of"] for row in readings} == {0}


@pytest.mark.parametrize("step", [10.0, -10.0])
async def test_a_clock_that_was_stepped_between_runs_gets_a_new_epoch(tmp_path, step):
    result = full(tmp_path, step=step)
    got = await collect(tmp_path)
    assert got["ml.power"].column("epoch").to_pylist() == [0] * 100 + [1] * 100
    assert means(got)[0] == pytest.approx(result.expected("ranging"))
    readings = [row for row in got["run.readings"].to_pylist() if row["clock_of"] == "ml.server"]
    second = [row["not_before"] for row in readings if row["epoch_of"] == 1 and row["not_before"] is not None]
    assert min(second) == 150_000 * MS


@pytest.mark.parametrize(("zone_h", "server_zone_h"), [(0, 0), (-7, -7), (5.75, 5.75), (0, -7), (9, 0)])
async def test_zones_are_found_whatever_the_timezone_field_says(tmp_path, zone_h, server_zone_h):
    result = full(tmp_path, zone_h=zone_h, server_zone_h=server_zone_h)
    got = await collect(tmp_path)
    assert starts(got) == {"ranging": 40_000_000_000, "run_1": 210_000_000_000}
    assert got["ml.power"].column("tick")[0].as_py() == pytest.approx(30_450 * MS, abs=MS)
    assert means(got)[1] == pytest.approx(result.expected("run_1"), rel=1e-12)


async def test_a_container_that_logs_in_another_zone_than_its_host(tmp_path):
    result = full(tmp_path, zone_h=0)
    (tmp_path / "power" / "client.log").write_text(
        "client 2021-04-04 20:07:11,000 [INFO] x\n"
    )  # seven hours behind
    got = await collect(tmp_path)
    assert starts(got)["run_1"] == 210_000_000_000
    assert means(got)[1] == pytest.approx(result.expected("run_1"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
async def test_day_first_dates_are_told_by_the_loadgens(tmp_path, newline):
    result = Result(tmp_path)
    result.session()
    result.run("run_1", 200, pattern=DAY_FIRST, newline=newline)
    got = await collect(tmp_path)
    assert means(got) == [pytest.approx(result.expected("run_1"))]
    assert got["ml.power"].column("tick")[0].as_py() == pytest.approx(200_450 * MS, abs=MS)


async def test_a_meter_that_averages_over_two_seconds(tmp_path):
    full(tmp_path)
    server = tmp_path / "power" / "server.json"
    server.write_text(server.read_text().replace("Go,1000,0", "Go,2000,0"))
    rail = (await collect(tmp_path))["run.rails"].to_pylist()[0]
    assert (rail["window_ns"], rail["sample_period_ns"]) == (2e9, 2e9)


async def test_a_meter_in_its_dc_mode_measures_at_the_devices_input(tmp_path):
    full(tmp_path)
    server = tmp_path / "power" / "server.json"
    server.write_text(server.read_text().replace("YokogawaWT330E,1", "YokogawaWT330_DC,1"))
    rail = (await collect(tmp_path))["run.rails"].to_pylist()[0]
    assert (rail["name"], rail["boundary"]) == ("dc", "dc_in")


async def test_without_the_session_files_the_hosts_agree_within_the_checkers_tolerance(tmp_path):
    result = Result(tmp_path)
    result.run("run_1", 200)
    got = await collect(tmp_path)
    assert means(got) == [pytest.approx(result.expected("run_1"))]
    assert starts(got) == {"run_1": 0}
    readings = [row for row in got["run.readings"].to_pylist() if row["clock_of"] == "ml.server"]
    assert {row["not_after"] - row["not_before"] for row in readings} == {1_600 * MS}
    assert "0.8 s" in next(row["value"] for row in got["run.facts"].to_pylist() if row["name"] == "clocks")


async def test_a_run_without_a_loadgen_log_has_samples_and_no_window(tmp_path):
    result = Result(tmp_path)
    result.session()
    result.run("run_1", 200)
    (tmp_path / "run_1" / "mlperf_log_detail.txt").unlink()
    got = await collect(tmp_path)
    assert got["ml.power"].num_rows == 100
    assert starts(got) == {}
    assert "ml.oracles" not in got


@pytest.mark.parametrize("word", ["-1", "-1.000000", "nan", "NaN", "-nan", "inf", "1.#QNAN", ""])
async def test_an_invalid_reading_is_null_and_a_gap_and_not_zero(tmp_path, word):
    result = Result(tmp_path)
    result.session()
    result.run("run_1", 200)
    spl = tmp_path / "run_1" / "spl.txt"
    lines = spl.read_text().splitlines()
    lines[50] = lines[50].replace("Watts,20.500000", f"Watts,{word}")
    spl.write_text("\n".join(lines))
    got = await collect(tmp_path)
    assert got["ml.power"].column("watts")[50].as_py() is None
    assert got["ml.power"].column("watts").null_count == 1
    (gap,) = got["run.gaps"].to_pylist()
    assert gap["stop"] == got["ml.power"].column("tick")[50].as_py()
    assert gap["stop"] - gap["start"] == 1_000_000_000
    kept = [watts for k, watts in enumerate(result.watts["run_1"]) if 10 <= k < 90 and k != 50]
    assert means(got) == [pytest.approx(sum(kept) / 79)]


async def test_channels_and_merged_meters_add_nothing_to_the_total(tmp_path):
    result = Result(tmp_path)
    result.session()
    result.run("run_1", 200, extra=",Ch1,Watts,3.0,Volts,1,Amps,1,PF,1,Analyzer2,Time,x,Watts,nonsense")
    assert means(await collect(tmp_path)) == [pytest.approx(result.expected("run_1"))]


async def test_ptdaemons_own_average_is_compared_where_no_sample_is_missing(tmp_path):
    result = full(tmp_path)
    (tmp_path / "power" / "ptd_logs.txt").write_bytes(
        b"04-04-2021 20:07:40.896: Go with mark 's_ranging'\r\n"
        b"04-04-2021 20:18:07.903: Avg watts 18.395000, min watts 9.4, max watts 18.6, samples 101, errors 0, valid 101\r\n"
        b"04-04-2021 20:18:21.217: Go with mark 's_run_1'\r\n"
        b"04-04-2021 20:28:46.215: Avg watts 18.396000, min watts 9.5, max watts 18.5, samples 100, errors 0, valid 100\r\n"
    )
    rows = [
        row
        for row in (await collect(tmp_path))["ml.oracles"].to_pylist()
        if row["quantity"] == "recording_mean_w"
    ]
    mean = sum(result.watts["run_1"]) / 100
    assert [(row["reported"], row["recomputed"]) for row in rows] == [
        (18.395, None),
        (18.396, pytest.approx(mean)),
    ]


async def test_the_published_figure_can_stand_beside(tmp_path):
    full(tmp_path)
    rows = (await collect(tmp_path, reported_w=20.495))["ml.oracles"].to_pylist()
    assert [row["reported"] for row in rows] == [None, 20.495]


async def test_samples_stamped_before_earlier_ones_are_left_out_and_said(tmp_path):
    result = Result(tmp_path)
    result.session()
    result.run("run_1", 200)
    spl = tmp_path / "run_1" / "spl.txt"
    lines = spl.read_text().splitlines()
    spl.write_text("\n".join([*lines[:60], lines[20], *lines[60:]]))
    got = await collect(tmp_path)
    assert got["ml.power"].num_rows == 100
    assert [(row["lost_rows"], row["reason"][:15]) for row in got["run.gaps"].to_pylist()] == [
        (1, "stamped before ")
    ]


async def test_loadgens_lines_are_a_stream_on_its_own_clock(tmp_path):
    full(tmp_path)
    detail = tmp_path / "run_1" / "mlperf_log_detail.txt"
    wrapped = ':::MLLOG {"key": "early", "value": {"a": [1]}, "time_ms": 18446744073709.551615}\n'
    detail.write_text(wrapped + detail.read_text())
    got = await collect(tmp_path)
    rows = [row for row in got["ml.loadgen"].to_pylist() if row["epoch"] == 1]
    assert rows[0] == {"tick": -1, "epoch": 1, "key": "early", "value": '{"a": [1]}'}
    bounds = [
        row
        for row in got["run.readings"].to_pylist()
        if row["clock_of"] == "ml.loadgen" and row["epoch_of"] == 1
    ]
    assert (bounds[0]["not_before"], bounds[0]["not_after"]) == (209_000 * MS, 210_000 * MS)


def test_the_result_is_found_above_and_below(tmp_path):
    result = full(tmp_path / "bert" / "Offline" / "performance")
    both = [result.folder / "ranging", result.folder / "run_1"]
    assert run_folders(tmp_path) == both
    assert run_folders(result.folder) == both
    assert run_folders(result.folder / "run_1") == both[1:]
    full(tmp_path / "bert" / "Server" / "performance")
    with pytest.raises(
        ConfigError, match="got 2: bert/Offline/performance, bert/Server/performance; name one"
    ):
        run_folders(tmp_path)
    with pytest.raises(ConfigError, match=r"got no spl\.txt"):
        run_folders(result.folder / "power")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "run_1/spl.txt",
            b"Time,03-17-2021 20:18:21.541,Volts,1",
            r"spl\.txt, line 1: expected Time,...,Watts",
        ),
        (
            "run_1/spl.txt",
            b"x\nTime,03-17-2021 25:18:21.541,Watts,1",
            r"spl\.txt, line 2: expected a time like",
        ),
        (
            "run_1/spl.txt",
            b"Time,02-30-2021 20:18:21.541,Watts,1",
            r"spl\.txt: expected dates with the month first",
        ),
        ("run_1/spl.txt", b"Time,01-02-9999 20:18:21.541,Watts,1", r"spl\.txt: expected dates"),
        (
            "run_1/spl.txt",
            b"Time,13-01-2021 20:18:21,Watts,1\nTime,01-13-2021 20:18:21,Watts,1",
            r"throughout",
        ),
        (
            "run_1/spl.txt",
            b"Time,04-04-2021 20:18:21.541,Watts,1_0",
            r"line 1, watts: expected a number, got '1_0'",
        ),
        ("run_1/spl.txt", b"Time,04-04-2031 20:18:21.541,Watts,1", r"expected times of this session"),
        ("run_1/mlperf_log_detail.txt", b":::MLLOG {", r"detail\.txt, line 1: expected :::MLLOG"),
        ("run_1/mlperf_log_detail.txt", b":::MLLOG " + b"[" * 99_999, r"detail\.txt, line 1"),
        (
            "run_1/mlperf_log_detail.txt",
            b':::MLLOG {"key": 1, "value": 1, "time_ms": 1e99}',
            r"line 1, time_ms",
        ),
        ("run_1/mlperf_log_detail.txt", b'"power_begin" 04-31-2021 20:18:34.781', r"line 1: expected a date"),
        (
            "run_1/mlperf_log_detail.txt",
            b'"power_begin" 04-04-2021 20:18:34.781\n"power_end" 04-04-2021 20:18:33.781',
            r"expected power_end after power_begin, got it 1\.0 s before",
        ),
        ("power/client.json", b"{", r"client\.json, line 1, column 2: expected JSON"),
        ("power/client.json", b"[]", r"client\.json: expected an object, got list"),
        (
            "power/client.json",
            b'{"messages": [{"cmd_time": "x"}]}',
            r"messages\[0\]\.cmd_time: expected a number",
        ),
        ("power/client.json", b'{"messages": [{"cmd_time": 1e999999}]}', r"messages\[0\]\.cmd_time"),
        (
            "power/client.json",
            b'{"messages": [' + b"0," * 300 + b"0]}",
            r"messages: expected at most 256, got 301",
        ),
        (
            "power/server.json",
            b'{"phases": {"testing": [[]]}}',
            r"phases\.testing: expected a number of seconds",
        ),
    ],
)
async def test_a_damaged_file_is_refused_with_the_position(tmp_path, name, content, message):
    full(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        await collect(tmp_path)


@pytest.mark.skipif(
    not RECORDED.exists(), reason=f"needs the recorded result in {RECORDED} (or $MELT_TRACES)"
)
async def test_the_recorded_result_has_its_official_mean(tmp_path):
    got = await collect(RECORDED)
    rows = {row["quantity"]: row for row in got["ml.oracles"].to_pylist()}
    assert rows["mean_w"]["recomputed"] == pytest.approx(18.362483, rel=1e-7)
    assert rows["recording_mean_w"]["recomputed"] == pytest.approx(
        rows["recording_mean_w"]["reported"], abs=1e-6
    )
    assert got["ml.power"].num_rows == 625
    readings = [row for row in got["run.readings"].to_pylist() if row["clock_of"] == "ml.server"]
    assert {row["resolution"] for row in readings} == {15_625_000}
    # what protocols.md works out by hand for the start: the server is 45.8 to 49.9 ms behind
    early = [row for row in readings if row["count"] < 60_000 * MS]
    low = max(
        row["not_before"] - row["count"] - row["resolution"] for row in early if row["not_before"] is not None
    )
    high = min(row["not_after"] - row["count"] for row in early if row["not_after"] is not None)
    assert (low / MS, high / MS) == (pytest.approx(45.8, abs=0.1), pytest.approx(49.9, abs=0.4))

"""The printed table: sums over requests, uncertainties that belong to sums, and what is not known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melt_stream.analysis.phase_rows import Row
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.analysis.summary import payload, summarise, table
from melt_stream.analysis.wording import NOTHING, measured, number, percent, seconds
from melt_stream.run import Run
from tests.packed_run import WATTS, Story, U, story, write


def rows_of(run: Run) -> dict[str, Row]:
    return {row.phase: row for row in summarise(run).rows}


@pytest.fixture
def whole(tmp_path: Path) -> Run:
    return write(tmp_path / "whole", story(gap=None))


def test_phases_are_summed_over_requests(whole: Run) -> None:
    rows = rows_of(whole)
    assert list(rows) == ["baseline", "load", "queue", "prefill", "decode", "request", "tail", "run"]
    prefill, decode = rows["prefill"], rows["decode"]
    assert (prefill.requests, prefill.tokens, decode.tokens) == (3, 40 + 60 + 24, 63 + 63 + 95)
    assert prefill.duration_s == pytest.approx(1.24)
    assert prefill.joules == pytest.approx(1.24 * WATTS["prefill"])
    assert prefill.joules_per_token == pytest.approx(1.24 * WATTS["prefill"] / 124)
    assert prefill.mwh_per_token == pytest.approx(1.24 * WATTS["prefill"] / 124 / 3.6)
    assert prefill.mean_w == pytest.approx(WATTS["prefill"])
    assert prefill.ttft_s == pytest.approx(0.421)  # the median of 0.421, 0.621 and 0.261
    assert decode.ttft_s is None
    assert decode.tokens_per_s == pytest.approx(221 / decode.duration_s)


def test_a_whole_request_is_queue_prefill_and_decode_per_output_token(whole: Run) -> None:
    rows = rows_of(whole)
    joules = sum(rows[p].joules or 0 for p in ("queue", "prefill", "decode"))
    assert rows["request"].joules == pytest.approx(joules)
    assert rows["request"].tokens == 64 + 64 + 96
    assert rows["request"].joules_per_token == pytest.approx(joules / 224)


def test_the_run_is_the_sum_of_its_phases_over_what_elapsed(whole: Run) -> None:
    run = rows_of(whole)["run"]
    assert run.joules == pytest.approx(sum(p["joules"] for p in whole.table("phases").to_pylist()))
    assert run.duration_s == pytest.approx(12.0)
    assert run.joules_per_token is None  # of which tokens?


def test_inter_token_times_are_pooled_over_requests(tmp_path: Path) -> None:
    told = Story()
    told.request(1, 0, output=11, itl_ms=30)
    told.request(2, 5000, output=101, itl_ms=50)
    told.gap = None
    decode = rows_of(write(tmp_path / "two", told))["decode"]
    assert decode.itl_p50_s == pytest.approx(0.048)  # most are of the second request: 48 and 52 ms by turns
    assert decode.itl_p95_s == pytest.approx(0.052)


def test_tokens_of_one_step_share_its_time(tmp_path: Path) -> None:
    told = story(gap=None)
    for token in told.tokens:
        token["count"] = 4
    decode = rows_of(write(tmp_path / "steps", told))["decode"]
    assert decode.itl_p50_s == pytest.approx(0.032 / 4)


def test_below_99_percent_there_is_no_joule_per_token_and_a_note_says_so(tmp_path: Path) -> None:
    run = write(tmp_path / "gap", story())
    decode, prefill = (rows_of(run)[p] for p in ("decode", "prefill"))
    assert decode.coverage == pytest.approx(1 - 0.35 / decode.duration_s)
    assert decode.quality == "partial"
    assert (decode.joules_per_token, decode.mean_w) == (None, None)
    assert decode.joules == pytest.approx(WATTS["decode"] * (decode.duration_s - 0.35))
    assert prefill.joules_per_token is not None
    assert any("less than 99 % of decode, request, run" in note for note in summarise(run).notes)


def test_phases_that_overlap_share_time_and_keep_their_coverage(tmp_path: Path) -> None:
    told = story(gap=None)
    for phase in told.phases:
        if phase["phase"] == "decode":  # half of the power, over half of the time
            phase |= {"seconds": phase["seconds"] / 2, "joules": phase["joules"] / 2}
    decode = rows_of(write(tmp_path / "shared", told))["decode"]
    assert decode.coverage == pytest.approx(1.0)
    assert decode.mean_w == pytest.approx(WATTS["decode"])
    assert decode.joules_per_token == pytest.approx(WATTS["decode"] * decode.duration_s / 2 / 221)


def test_where_nothing_measured_power_there_are_no_joules(tmp_path: Path) -> None:
    summary = summarise(write(tmp_path / "blind", story(powered=False)))
    assert not summary.measured_power
    assert all(row.joules is None and row.joules_u is None and row.net_joules is None for row in summary.rows)
    assert all(row.quality == "missing" for row in summary.rows)
    assert "Nothing measured the power of host" in summary.notes[0]
    headers, cells = table(summary)
    assert "energy / J" not in headers
    assert "TTFT" in headers
    assert "0 ± 0" not in str(cells)


def test_estimated_power_is_called_estimated_beside_every_joule_per_token(tmp_path: Path) -> None:
    summary = summarise(write(tmp_path / "estimated", story(estimated=True, boundary="package", gap=None)))
    headers, rows = table(summary)
    assert {row[headers.index("boundary")] for row in rows} == {"package, estimated"}
    assert {row[headers.index("quality")] for row in rows} == {"estimated"}
    assert any("estimated: a model stands in for a sensor" in note for note in summary.notes)


def test_the_boundary_stands_beside_every_joule_per_token(whole: Run) -> None:
    headers, rows = table(summarise(whole))
    for row in rows:
        assert row[headers.index("J/token")] == NOTHING or row[headers.index("boundary")] == "board"
    assert "device" not in headers  # there is only one


def test_two_devices_have_rows_of_their_own(tmp_path: Path) -> None:
    told, phone = story(gap=None), Story(device="phone", sensor="usb.power", boundary="battery", gap=None)
    phone.request(9, 0)
    told.phases += phone.phases
    told.requests += phone.requests
    told.tokens += phone.tokens
    headers, rows = table(summarise(write(tmp_path / "two", told)))
    assert headers[0] == "device"
    assert [row[0] for row in rows].count("phone") == 5
    phone_row = next(row for row in rows if row[:2] == ["phone", "decode"])
    assert phone_row[headers.index("boundary")] == "battery"


def test_a_task_of_two_devices_has_rows_of_both_together(tmp_path: Path) -> None:
    def run(name: str, boundary: str) -> Run:
        told, orin = story(gap=None), Story(device="orin", sensor="wall.power", boundary=boundary, gap=None)
        for phase in told.phases:
            if phase["request"] is not None:
                orin.phase(
                    phase["phase"],
                    phase["start_ns"] / 1e6,
                    phase["stop_ns"] / 1e6,
                    phase["request"],
                    phase["tokens"],
                )
                orin.phases[-1]["name"] = phase["name"]
        told.phases += orin.phases
        return write(tmp_path / name, told)

    summary = summarise(run("same", "board"))
    both = {row.phase: row for row in summary.rows if row.devices == ("host", "orin")}
    alone = {row.phase: row for row in summary.rows if row.device == "host"}
    assert set(both) >= {"prefill", "decode", "request"}
    assert "run" not in both
    for phase in ("prefill", "decode", "request"):
        one, two = alone[phase], both[phase]
        assert one.joules is not None
        assert two.joules == pytest.approx(2 * one.joules)
        assert (two.device, two.boundary) == ("host + orin", "board")
        assert (two.duration_s, two.tokens, two.requests) == (one.duration_s, one.tokens, one.requests)
        assert two.mean_w == pytest.approx(2 * (one.mean_w or 0.0))
        assert two.joules_per_token == pytest.approx(2 * (one.joules_per_token or 0.0))
    assert any(
        note.startswith("host + orin: the requests that they have a part in") for note in summary.notes
    )
    summary = summarise(run("apart", "wall"))
    assert {row.joules for row in summary.rows if len(row.devices) > 1} == {None}
    assert any("not measured at one boundary" in note for note in summary.notes)


def test_a_runtimes_own_phase_keeps_its_name(tmp_path: Path) -> None:
    told = story(gap=None)
    told.phase("tail", 11000, 11500)
    told.phases[-1] |= {"phase": "other", "name": "kv-cache flush"}
    _, rows = table(summarise(write(tmp_path / "named", told)))
    assert "other: kv-cache flush" in [row[0] for row in rows]


def test_what_rows_share_is_not_averaged_away(tmp_path: Path) -> None:
    """The gain's 1 % is one quantity for all of the decodes; the 0.2 % of each is its own."""
    told = story(gap=None)
    decode = rows_of(write(tmp_path / "shared", told))["decode"]
    each = np.array([p["joules"] for p in told.phases if p["phase"] == "decode"])
    expected = np.hypot(U * each.sum(), 0.002 * np.sqrt((each**2).sum()))
    assert decode.joules_u == pytest.approx(expected)
    assert decode.joules_per_token_u == pytest.approx(expected / 221)


def test_net_joules_have_the_uncertainty_of_the_baseline_too(tmp_path: Path) -> None:
    idle = {"factor": "idle", "kind": "offset", "applies": "net_joules", "u": 0.1, "unit": "W", "sensor": "meter.power",
            "rail": "main", "device": "host"}  # fmt: skip
    decode = rows_of(write(tmp_path / "net", story(gap=None), factors=[idle]))["decode"]
    assert decode.net_joules == pytest.approx((WATTS["decode"] - 2) * decode.duration_s)
    assert decode.net_joules_u == pytest.approx(0.1 * decode.duration_s, rel=0.01)
    assert decode.joules_u is not None
    assert decode.joules_u < 0.1


def test_the_json_has_the_columns_of_the_tables_and_no_nan(tmp_path: Path) -> None:
    told = story()
    told.tokens[3]["joules"] = float("nan")
    said = json.loads(json.dumps(payload(write(tmp_path / "json", told)), allow_nan=False))
    assert list(said) == ["run", "phases", "tokens", "markers"]
    assert said["run"] == "json"
    assert list(said["phases"][0]) == SCHEMAS["phases"].names
    assert list(said["tokens"][0]) == SCHEMAS["tokens"].names
    assert said["tokens"][3]["joules"] is None


def test_a_run_in_which_nothing_happened_says_so(tmp_path: Path) -> None:
    summary = summarise(write(tmp_path / "empty", Story()))
    assert (summary.rows, summary.measured_power) == ((), False)
    assert summary.notes == ("Nothing happened in this run: it has no phases.",)
    assert table(summary) == ([], [])


def test_flags_are_explained_below_the_table(tmp_path: Path) -> None:
    told = story(gap=None)
    told.phases[3] |= {"flags": ["unstated", "shared"]}
    summary = summarise(write(tmp_path / "flags", told))
    headers, rows = table(summary)
    assert rows[-1][headers.index("quality")] == "measured, shared, unstated"
    assert [note.split(":")[0] for note in summary.notes if note.startswith("Flag")] == [
        "Flag unstated",
        "Flag shared",
    ]


def test_a_table_keeps_no_column_that_says_nothing(whole: Run) -> None:
    summary = summarise(whole)
    without = replace(
        summary, rows=tuple(replace(r, net_joules=None, net_joules_u=None) for r in summary.rows)
    )
    assert set(table(summary)[0]) - set(table(without)[0]) == {"net / J"}


@pytest.mark.parametrize(
    ("value", "u", "said"),
    [
        (12.3456, 0.0512, "12.346 ± 0.051"),
        (12.3456, 0.0096, "12.3456 ± 0.0096"),
        (1234.5, 99.6, "1234 ± 100"),
        (0.01234, 0.5, "0.01 ± 0.50"),
        (123456.0, 2345.0, "123500 ± 2300"),
        (-0.2, 0.03, "-0.200 ± 0.030"),
        (-0.001, 1.6, "0.0 ± 1.6"),
        (3.0, None, "3.00 ± ?"),
        (3.0, 0.0, "3.00"),
        (None, 0.1, NOTHING),
        (float("nan"), 0.1, NOTHING),
    ],
)
def test_uncertainties_have_two_digits_and_values_as_many_places(value: float, u: float, said: str) -> None:
    assert measured(value, u) == said


def test_numbers_read_well() -> None:
    assert [number(v) for v in (0, 1.5, 0.000123, 12345.6, 1.23e-9, None)] == [
        "0", "1.50", "0.000123", "12346", "1.23e-09", NOTHING,
    ]  # fmt: skip
    assert [percent(v) for v in (1.0, 0.99999, 0.9876, 0.0001, 0.0, None)] == [
        "100 %", "> 99.9 %", "98.8 %", "< 0.1 %", "0.0 %", NOTHING,
    ]  # fmt: skip
    assert [seconds(v) for v in (12.34, 0.0321, 5e-6, 2e-8, 0, None)] == [
        "12.3 s", "32.1 ms", "5.00 µs", "20.0 ns", "0 s", NOTHING,
    ]  # fmt: skip

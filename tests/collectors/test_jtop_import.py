"""Importer jtop: a recorded table of an AGX Orin and its prompts, energies out of SQL, and tables that are none."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.collectors.jtop_import import BESIDE, JtopImport
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.session import import_recording
from tests.collectors import importing

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[3] / "shared" / "traces"))
RECORDED = TRACES / "jtop_orin_janus"
recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason=f"needs the recorded traces in {TRACES} (or $MELT_TRACES)"
)
HEAD = "System-Time,CPU0-STATE,CPU0-CURR_FREQ,CPU0-CURR_LOAD,cv0-thermal-CURR_TEMP,VDD_IN-IN_POWER,EMC-CURR_LOAD,fan1-CURR_PWM"


def row(time="01:22:33", watts=4000, load=7):
    return f"{time},True,729.6,{load},-256000,{watts},1133,51"


def imported(folder, **fields):
    return importing.imported(JtopImport(folder, **fields))


def table(tmp_path, *rows):
    (tmp_path / "jtop.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return tmp_path


@recorded
def test_the_recorded_table_has_its_means_and_its_prompts_their_energies(tmp_path):
    run = pack(import_recording("jtop", RECORDED, tmp_path))
    sql = connect(tmp_path)

    def one(query):
        return sql.execute(query).fetchall()

    means = dict(one("SELECT rail, avg(watts) FROM power GROUP BY rail"))
    expected = {"VDD_GPU_SOC": 23.27, "VDD_CPU_CV": 1.71, "VIN_SYS_5V0": 13.43, "VDDQ_VDD2_1V8AO": 6.12}
    assert {name: round(means[name], 2) for name in expected} == expected
    assert means["total"] == pytest.approx(
        23.271185 + 1.7090775 + 13.432965, rel=1e-9
    )  # VDDQ lies in VIN_SYS_5V0
    with (RECORDED / "tegrastats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1200
    assert one("SELECT count(*), min(celsius), max(celsius) FROM thermal WHERE zone = 'gpu-thermal'") == [
        (
            1200,
            min(float(r["gpu-thermal-CURR_TEMP"]) for r in rows),
            max(float(r["gpu-thermal-CURR_TEMP"]) for r in rows),
        )
    ]
    assert one("SELECT DISTINCT zone FROM thermal WHERE zone LIKE 'cv%'") == []  # -256000: there is no sensor
    assert one("SELECT count(*), count(DISTINCT core) FROM cores") == [(14400, 12)]
    assert one("SELECT avg(gpu_load) FROM state")[0][0] == pytest.approx(
        sum(float(r["IGPU0-CURR_LOAD"]) for r in rows) / 1200
    )
    assert one("SELECT count(emc_load), min(emc_hz) FROM state") == [(0, 204e6)]
    prompts = one(
        "SELECT q.name, p.tokens, q.joules, (q.stop_ns - q.start_ns) / 1e9, q.rail, q.boundary FROM requests q JOIN prompts p USING (request) "
        "ORDER BY request"
    )
    said = json.JSONDecoder().raw_decode((RECORDED / BESIDE).read_text())[0]
    assert prompts[0][0] == said["input_prompt"]["user_query"]
    assert prompts[0][1] == said["token_count"] == 19
    assert prompts[0][3] == pytest.approx(said["latency"]["total"], abs=1e-8)
    assert {row[4:] for row in prompts} == {("total", "board")}
    assert 350 < len(prompts) < 629
    (fact,) = [fact for fact in run.table("run.facts").to_pylist() if fact["name"] == "prompts"]
    assert json.loads(fact["value"])["left_out"] == 629 - len(prompts)
    # End to end, their energies are all that was measured between the first one's start and the last one's end.
    between = one(
        "SELECT sum(joules), energy_between(any_value(run), 'total', min(start_ns), max(stop_ns)) FROM requests"
    )
    assert between[0][0] == pytest.approx(between[0][1], rel=1e-9)
    seconds = sum(row[3] for row in prompts)
    assert between[0][0] / seconds == pytest.approx(38.4, rel=0.02)


def test_times_pass_midnight_and_a_hole_is_a_gap(tmp_path):
    times = [f"23:59:{k:02}" for k in range(50, 60)] + [f"00:00:{k:02}" for k in range(10)] + ["00:01:00"]
    keep = imported(table(tmp_path, *(row(time) for time in times)))
    ticks = [one["tick"] // 10**9 for one in keep.rows("it.power")]
    assert ticks == [*range(20), 70]
    assert {one["t_u"] for one in keep.rows("it.power")} == {500_000_000}
    assert {(gap["stream"], gap["lost_rows"]) for gap in keep.rows("run.gaps")} >= {
        ("power", 50),
        ("cores", 50),
    }
    assert {(one["fan"], one["pwm"], one["rpm"]) for one in keep.rows("it.fan")} == {("fan1", 20.0, None)}
    assert keep.rows("it.state")[0]["emc_load"] is None
    assert {rail["boundary"] for rail in keep.rows("run.rails")} == {"board"}
    assert "it.thermal" not in keep.sources


def test_prompts_lie_end_to_end_from_where_they_are_said_to_begin(tmp_path):
    table(tmp_path, *(row(f"10:00:{k:02}") for k in range(10)))
    asked = [
        {"input_prompt": {"user_query": f"q{k}"}, "latency": {"total": 2.5}, "token_count": k}
        for k in range(5)
    ]
    (tmp_path / "asked.txt").write_text("\n".join(map(json.dumps, asked)))
    keep = imported(tmp_path, prompts="asked.txt", prompts_at_s=1.5)
    marks = [(one["kind"], one["tick"] / 1e9, one["name"]) for one in keep.rows("it.events")]
    assert marks[:4] == [
        ("window_start", 1.5, "q0"),
        ("window_end", 4.0, "q0"),
        ("window_start", 4.0, "q1"),
        ("window_end", 6.5, "q1"),
    ]
    assert len(marks) == 6  # the others end after the table
    assert [one["tokens"] for one in keep.rows("it.prompts")] == [0, 1, 2]
    (tmp_path / BESIDE).write_text("{}")
    assert "it.prompts" not in imported(tmp_path, prompts="-").sources
    with pytest.raises(DataError, match=r"character 0: expected latency\.total in seconds, got 'None'"):
        imported(tmp_path)
    with pytest.raises(DataError, match=r"gone\.txt: expected a readable file"):
        imported(tmp_path, prompts="gone.txt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: expected a header with System-Time"),
        ("a,b\n1,2\n", "line 1: expected a header"),
        (f"{HEAD}\n", "expected rows below the header, got none"),
        (f"{HEAD}\n{row('1:2:3')}\n", r"line 2: expected a time HH:MM:SS, got '1:2:3'"),
        (f"{HEAD}\n{row('10:00:01')}\n{row('10:00:00')}\n", "line 3: expected times that never decrease"),
        (f"{HEAD}\n{row()}\n01:2\n{row()}\n", "line 3: expected 8 columns, got 1"),
        (f"{HEAD}\n" + 'a,"b\n', "line 2: expected a row of CSV"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, said):
    (tmp_path / "jtop.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        imported(tmp_path)


def test_a_folder_of_several_tables_names_them(tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(HEAD)
    with pytest.raises(ConfigError, match=r"expected one CSV file, got a\.csv, b\.csv"):
        imported(tmp_path)


def test_a_last_row_that_was_cut_is_left_out(tmp_path):
    assert (
        len(imported(table(tmp_path, row("10:00:00"), row("10:00:01"), "10:00:02,Tr")).rows("it.power")) == 2
    )


def refusal(folder):
    try:
        imported(folder)
    except DataError as exc:
        return str(exc)
    return ""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(max_size=60), st.integers(0, 200), st.booleans())
def test_whatever_stands_in_the_files_is_imported_or_refused_with_its_place(tmp_path, junk, at, in_table):
    good = f"{HEAD}\n{row('10:00:00')}\n{row('10:00:01')}\n"
    asked = json.dumps({"input_prompt": {"user_query": "q"}, "latency": {"total": 0.5}, "token_count": 3})
    text, other = (good, asked) if in_table else (asked, good)
    mangled = text[:at] + junk + text[at:]
    (tmp_path / "jtop.csv").write_text(mangled if in_table else other)
    (tmp_path / BESIDE).write_text(other if in_table else mangled)
    told = refusal(tmp_path)
    assert told == "" or ("expected" in told and str(tmp_path) in told)

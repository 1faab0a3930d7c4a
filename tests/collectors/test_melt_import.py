"""MELT's run directories: what happened, when, by whose clock and how surely, and their own metric beside ours."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from contextlib import suppress
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.archive import connect
from melt_stream.cli._app import run as cli
from melt_stream.clock import monotonic, utc_ns
from melt_stream.collectors._melt_board import BoardLog, Round, Zone
from melt_stream.collectors._melt_events import Step, answers, read_events
from melt_stream.collectors._melt_numbers import Stats, llama_timings, mlc_statistics, runtime_stats
from melt_stream.collectors._melt_rule import Rule, Window
from melt_stream.collectors.melt_import import MeltImport
from melt_stream.emulators import Load
from melt_stream.emulators.monsoon_hvpm import MonsoonHvpm
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Hub
from tests.collectors import written_melt as lab
from tests.collectors.test_importers_hostile import mangle
from tests.emulators.emulated_usb import EmulatedUsb

WRITERS = [lab.phone_llama, lab.phone_app, lab.phone_farm, lab.board_llama]


async def rows(path, **fields):
    hub = Hub(now=lambda: 0)
    importer = MeltImport(path=path, **fields)
    await importer.collect(hub.outlet("melt"))
    found = {}
    for batch in hub.take():
        found.setdefault(batch.source.stream.name, []).extend(batch.data.to_pylist())
    return importer, found


def facts(found):
    return {row["name"]: json.loads(row["value"]) for row in found["facts"]}


def readings(found, clock):
    return [row for row in found["readings"] if row["clock_of"] == f"melt.{clock}"]


def fits(reading, host):
    """Whether a clock that shows a tick at host(tick) could have been read so."""
    last = reading["count"] + reading["resolution"]
    before, after = reading["not_before"], reading["not_after"]
    return (before is None or host(last) >= before) and (after is None or host(reading["count"]) <= after)


def imported(folder, archive, settings=""):
    assert cli(("import", f"melt{settings}", str(folder), "--archive", str(archive))) in (0, 3)
    return lambda query: asked(archive, query)


def asked(archive, query):
    with connect(archive) as database:
        return database.execute(query).fetchall()


# --- a phone beside a controller and a Monsoon


def test_a_llama_cpp_run_on_a_phone_answers_sql(tmp_path):
    ask = imported(lab.phone_llama(tmp_path / "run_cs512_mgl32", ahead=7.3), tmp_path / "archive")
    found = ask("SELECT request, phase, round(stop_ns - start_ns, -6) / 1e9, tokens FROM phases WHERE phase IN ('load', 'prefill', 'decode') ORDER BY start_ns")  # fmt: skip
    assert found == [
        (None, "load", 1.8, None), (1, "prefill", 0.99, 30), (1, "decode", 1.0, 2), (2, "prefill", 0.99, 700), (2, "decode", 1.0, 2),
    ]  # fmt: skip
    assert ask("SELECT name, model, prompt_tokens, output_tokens, partial FROM requests ORDER BY request") == [
        ("iter0 conv0 prompt 0", "tinyllama-q4_0", 30, 3, False), ("iter0 conv0 prompt 1", "tinyllama-q4_0", 700, 3, False),
    ]  # fmt: skip
    (before, after) = ask("SELECT joules, joules_lo, joules_hi FROM requests ORDER BY request")
    assert before[0] == pytest.approx(2.1, abs=0.01)  # 1 W while 2.1 s, whatever the clocks show
    assert after[1] < 6.3 - 0.2 < after[2]  # the rise may lie within it, or before


def test_the_phone_is_placed_by_what_the_script_saw_and_its_offset_is_within_the_bound(tmp_path):
    ask = imported(lab.phone_llama(tmp_path / "run", ahead=7.3), tmp_path / "archive")
    ((offset, tick, low, high, bound),) = ask(
        "SELECT offset_ns, tick0, offset_lo_ns, offset_hi_ns, bound_ns FROM clocks WHERE clock = 'melt.phone'"
    )
    ahead = tick - offset
    assert abs(ahead - 7_300_000_000) <= bound < 100_000_000
    assert tick - high <= 7_300_000_000 <= tick - low


@pytest.mark.parametrize("ahead", [-3600.0, -0.4, 0.0, 0.0125, 86400.0])
@pytest.mark.parametrize("write", WRITERS[:3])
async def test_no_reading_denies_the_truth_however_far_the_phone_is_ahead(tmp_path, write, ahead):
    _, found = await rows(write(tmp_path / "run", ahead, seconds=2.0))
    shift = round(ahead * 1e9)
    seen = readings(found, "phone")
    assert len(seen) >= 2
    assert all(fits(one, lambda tick: tick - shift) for one in seen)
    limits = [one["not_before"] is not None for one in seen], [one["not_after"] is not None for one in seen]
    assert all(any(side) for side in limits)


async def test_a_trace_is_late_by_what_calibration_took_and_the_bound_covers_it_on_that_side(tmp_path):
    importer, found = await rows(lab.phone_llama(tmp_path / "run"))
    base = importer.start_utc_ns
    truth = round((lab.BEGAN - lab.LATE) * 1e9) - base
    naive = round(lab.BEGAN * 1e9) - base
    for one in readings(found, "monsoon"):
        assert fits(one, lambda tick: truth + tick)
        assert one["not_before"] - (naive + one["count"]) == pytest.approx(-lab.FIRST * 1e9, abs=20e6)
        assert 0 < one["not_after"] - (naive + one["count"]) < 10e6  # a packet's time, no more
    told = facts(found)["monsoon_shift_s"]
    assert told["late_by_at_most"] == pytest.approx(lab.FIRST, abs=0.01)
    assert told["stamps_apart_by_at_most"] == pytest.approx(0.003, abs=1e-4)


@pytest.mark.realtime
async def test_pymonsoon_as_melts_rig_runs_it_lies_within_the_bound(tmp_path, monkeypatch):
    """Its own engine writes the trace, of an emulated box that plays a square wave: each edge was when the readings allow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from Monsoon import HVPM, pmapi, sampleEngine
    box = MonsoonHvpm()
    box.load, box.began = Load.parse("square:0.4W,4W,400ms"), monotonic()
    since_1970 = utc_ns() - monotonic()
    monkeypatch.setattr(pmapi.usb.core, "find", EmulatedUsb(box).find)
    monsoon = HVPM.Monsoon()
    monsoon.setup_usb(Protocol=pmapi.USB_protocol())
    monsoon.setVout(4.0)
    engine = sampleEngine.SampleEngine(monsoon)
    engine.ConsoleOutput(False)
    engine.periodicStopSampling(closeCSV=True)
    engine.periodicStartSampling()
    engine.enableCSVOutput(str(tmp_path / "measurements_monsoon.csv"))
    (tmp_path / ".t_monsoon").write_text(str(utc_ns() / 1e9))
    for _ in range(40):
        engine.periodicCollectSamples(100)
    engine.periodicStopSampling(closeCSV=True)
    importer, found = await rows(tmp_path)
    one = readings(found, "monsoon")[0]
    low, high = one["not_before"] - one["count"], one["not_after"] - one["count"]
    ticks = np.array([row["tick"] for row in found["main"]])
    rising = np.flatnonzero(np.diff(np.array([row["amps"] > 0.55 for row in found["main"]]).astype(int)) == 1)
    assert len(rising) >= 2
    origin = importer.start_utc_ns - since_1970  # monotonic
    for before, after in zip(ticks[rising], ticks[rising + 1], strict=True):
        edges = box.began + 200_000_000 + np.arange(0, 100) * 400_000_000 - origin
        assert ((edges >= before + low) & (edges <= after + high)).any()
    naive = round(float((tmp_path / ".t_monsoon").read_text()) * 1e9) - importer.start_utc_ns
    assert low < naive < high


async def test_samples_that_share_a_stamp_lie_evenly(tmp_path):
    _, found = await rows(lab.phone_llama(tmp_path / "run"))
    ticks = np.array([row["tick"] for row in found["main"]])
    assert len(ticks) == 80_000
    assert np.abs(np.diff(ticks) - 200_000).max() < 2_000
    assert {(row["volts"], round(row["amps"], 6)) for row in found["main"]} == {(4.0, 0.25), (4.0, 0.75)}


async def test_an_app_is_tied_by_its_stage_alone_unless_somebody_knows_better(tmp_path):
    folder = lab.phone_app(tmp_path / "run", ahead=0.25)
    _, found = await rows(folder)
    assert "stages that it acted in" in facts(found)["clocks"]
    seen = readings(found, "phone")
    early, late = min(one["count"] for one in seen), max(one["count"] for one in seen)
    starts = [one["not_before"] for one in seen if one["count"] == early]
    assert starts == [1_750_000_000]  # Run_0 began 2 s after T0; the app's own start counts for nothing
    assert late == 13_100_000_000 + 250_000_000 - 250_000_000
    _, known = await rows(folder, agree_s=0.3)
    assert "agree within 0.3 s" in facts(known)["clocks"]
    assert len(readings(known, "phone")) == len(seen) + 2
    assert all(fits(one, lambda tick: tick - 250_000_000) for one in readings(known, "phone"))


async def test_without_evidence_a_phones_events_have_no_place_and_it_is_told(tmp_path):
    folder = lab.phone_app(tmp_path / "run")
    (folder / "measurements_ts.csv").unlink()
    _, found = await rows(folder)
    assert readings(found, "phone") == []
    assert "have no place" in facts(found)["clocks"]
    assert len(found["phone_events"]) > 10


async def test_a_trace_without_its_beginning_has_no_place_and_no_metric(tmp_path):
    folder = lab.phone_farm(tmp_path / "run", seconds=2.0)
    (folder / ".t_monsoon").unlink()
    _, found = await rows(folder)
    assert readings(found, "monsoon") == []
    assert "its energy has no place" in facts(found)["monsoon_place"]
    assert {row["quantity"] for row in found["oracles"]} == {"decode_tokens_per_s", "prefill_tokens_per_s"}


async def test_one_millisecond_is_what_a_coarse_clock_is_read_to(tmp_path):
    _, found = await rows(lab.phone_llama(tmp_path / "run"))
    assert {one["resolution"] for one in readings(found, "phone")} == {1_000_000}
    first, last = readings(found, "script")
    assert (first["not_before"], first["not_after"] - first["not_before"]) == (first["count"], 1_000_000)
    assert last["count"] - first["count"] == 10_100_000_000


async def test_an_iphones_answers_are_cut_by_llama_cpps_timers(tmp_path):
    _, found = await rows(lab.phone_farm(tmp_path / "run"))
    tokens = [(r["request"], r["index"], r["count"]) for r in found["phone_events"] if r["kind"] == "token"]
    assert tokens == [(1, 0, 1), (1, 10, 10), (2, 0, 1), (2, 5, 5)]
    by_kind = {(r["request"], r["kind"], r["index"]): r["tick"] for r in found["phone_events"]}
    assert by_kind[1, "token", 0] - by_kind[1, "prefill_start", None] == 500_000_000
    assert [(row["state"], row["level"]) for row in found["app_thermal"]] == [("nominal", 0), ("fair", 1)]


async def test_phases_that_a_runtime_names_are_kept_and_stages_never_count_twice(tmp_path):
    _, found = await rows(lab.phone_app(tmp_path / "run"))
    named = {row["name"] for row in found["phone_events"] if row["kind"] == "phase_start"}
    assert named == {"init", "unload", "reset_chat"}
    assert [r["name"] for r in found["events"] if r["kind"] == "phase_start"] == ["Setup", "Run_0"]
    assert [(r["stage"], r["duration"], r["rx"]) for r in found["stages"]][1] == ("Experiment", 28.0, 20000)
    assert (
        sum(r["kind"] == "load_start" for r in found["phone_events"]) == 1
    )  # the app repeats it, the events have it
    assert len(found["melt_events"]) == 2 * len(lab.MLC) - 1


async def test_what_was_not_measured_over_adb_is_unknown(tmp_path):
    _, found = await rows(lab.phone_llama(tmp_path / "run"))
    assert {(row["volts"], row["amps"]) for row in found["adb"]} == {(None, None)}
    assert [row["cpu_util"] for row in found["adb"]] == [
        None,
        21.0,
        22.0,
        23.0,
    ]  # the first is one since boot
    told = facts(found)
    assert (told["lab"], told["configuration.app"]) == ("PhoneLab", "LlamaCpp")
    assert "configuration.temperature" not in told


# --- a board that measures itself


def test_a_board_measured_itself_on_one_clock(tmp_path):
    ask = imported(lab.board_llama(tmp_path / "run"), tmp_path / "archive")
    found = ask("SELECT request, phase, round(joules, 4), quality FROM phases WHERE phase IN ('load', 'prefill', 'decode') ORDER BY start_ns")  # fmt: skip
    assert [one[:2] for one in found] == [
        (None, "load"),
        (1, "prefill"),
        (1, "decode"),
        (2, "prefill"),
        (2, "decode"),
    ]
    assert [one[2] for one in found] == pytest.approx([1.8, 0.99, 1.0, 2.97, 3.0], abs=0.01)
    assert {one[3] for one in found} == {"measured"}
    rails = ask("SELECT rail, boundary, parent FROM rails ORDER BY rail")
    assert rails == [("VDD_CPU_GPU_CV", "rail", "VDD_IN"), ("VDD_IN", "board", None)]
    assert ask("SELECT DISTINCT zone, min(celsius) FROM thermal GROUP BY ALL") == [("GPU-therm", 35.0)]


async def test_rails_were_read_before_their_lines_and_counts_are_no_lines(tmp_path):
    _, found = await rows(lab.board_llama(tmp_path / "run"))
    power = [row for row in found["power"] if row["rail"] == "VDD_IN"]
    assert len(power) == 1500  # none is lost to a count that stands before its stamp
    assert (power[0]["tick"], power[0]["t_u"]) == (250_000, 250_000)
    assert (power[-1]["watts"], power[-1]["volts"], power[-1]["amps"]) == (3.0, 5.0, 0.6)
    assert facts(found)["lines_left_out"] == {"counts": 1500, "others": 1}
    assert facts(found)["lab"] == "JetsonLab"


async def test_iterations_are_one_run_with_a_gap_between(tmp_path):
    folder = lab.board_llama(tmp_path / "run", seconds=5.0)
    lab.board_log(folder, iteration=1, start=30.0, seconds=5.0)
    _, found = await rows(folder)
    (gap,) = [row for row in found["gaps"] if row["stream"] == "power"]
    assert gap["stop"] - gap["start"] == pytest.approx(24e9, rel=0.01)
    lab.board_log(folder, iteration=2, start=20.0, seconds=1.0)
    with pytest.raises(DataError, match=r"energy_iter2\.log: expected a log that begins after the one"):
        await rows(folder)


def test_a_line_of_the_monitor_may_follow_a_torn_count():
    log = BoardLog("x")
    lines = ["12", "131709741000000000001 GPU-therm: 35125 mC", "1709741000000000002 voltage_VDD_IN: 5000 mV", "oops",
             "1709741000000000003 power_VDD_IN: 800.5 mW", "1709741000000000009 voltage_VDD_IN: 5008 mV"]  # fmt: skip
    zone, first, second = log.read(enumerate(lines, 1))
    assert zone == Zone(1_709_741_000_000_000_001, "GPU-therm", 35.125)
    assert isinstance(first, Round)
    assert (first.after, first.before, first.watts("VDD_IN")) == (
        1_709_741_000_000_000_001,
        1_709_741_000_000_000_002,
        0.8005,
    )
    assert (second.after, second.watts("VDD_IN")) == (1_709_741_000_000_000_003, None)
    assert (log.counts, log.junk) == (1, 1)
    with pytest.raises(DataError, match="line 2: expected times that never decrease"):
        list(BoardLog("x").read(enumerate(["1709741000000000002 A: 1 mC", "1709741000000000001 A: 1 mC"], 1)))


# --- MELT's own metric


async def test_their_energy_per_token_stands_beside_ours_and_what_their_report_said(tmp_path):
    folder = lab.phone_farm(tmp_path / "run")
    head = "iteration,conversation,prompt,duration (sec),tps,prefill_tps,energy_pt (mWh),discharge_pt (mAh)"
    (folder / "results_model_inference_measurements.csv").write_text(f"{head}\n0,0,0,2.1,7.1,60.0,0.05,-1\n")
    _, found = await rows(folder)
    by = {(row["request"], row["quantity"]): row for row in found["oracles"]}
    one = by[1, "joules_per_output_token"]
    assert one["reported"] == pytest.approx(0.18)
    assert one["recomputed"] == pytest.approx(2.1 / 10, rel=0.01)
    assert by[1, "charge_per_output_token"]["recomputed"] == pytest.approx(250 * 2.1 / 3600 / 10, rel=0.01)
    assert by[1, "charge_per_output_token"]["reported"] is None
    assert by[1, "decode_tokens_per_s"]["recomputed"] == pytest.approx(10 / 1.4)
    # the prompt from T0 + 11 s on, as they place the trace: its rise at 10 s shows 1.3 s late
    assert by[2, "joules"]["recomputed"] == pytest.approx(0.3 * 1 + 1.8 * 3, rel=0.01)


def slow_rule(windows, samples):
    """What their code does, sample by sample: strictly inside, the difference to the last one kept."""
    found = []
    for start, stop in windows:
        kept = [one for one in samples if one[0] > start and one[1] < stop]
        steps = [0.0, *(b[0] - a[0] for a, b in pairwise(kept))][: len(kept)]
        mwh = sum(ma * v * d / 3600 for (_, _, ma, v), d in zip(kept, steps, strict=True))
        found.append((mwh, len(kept)))
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 900), st.integers(0, 50)), max_size=40),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), min_size=1, max_size=4), st.integers(1, 7),
)  # fmt: skip
def test_the_rule_is_theirs_however_the_samples_come_in_blocks(samples, windows, block):
    times = sorted(t for t, _, _ in samples)
    until = (
        np.minimum.accumulate([t + u for t, (_, _, u) in zip(times, samples, strict=True)][::-1])[::-1]
        if times
        else []
    )
    seen = [(t / 10, u / 10, float(ma), 4.0) for t, u, (_, ma, _) in zip(times, until, samples, strict=True)]
    spans = [Window(a / 10, (a + d) / 10) for a, d in windows]
    rule = Rule(spans)
    for k in range(0, len(seen), block):
        part = np.array(seen[k : k + block])
        rule.feed(part[:, 0], part[:, 2], part[:, 3], until=part[:, 1])
    for k, (mwh, count) in enumerate(slow_rule(spans, seen)):
        assert (rule.samples[k], rule.mwh[k]) == (count, pytest.approx(mwh, abs=1e-9))
        assert (rule.joules(k) is None) == (count == 0)


# --- what runtimes write


def test_llama_cpps_steps_read_the_prompt_until_single_tokens_begin():
    lines = list(enumerate(lab.spans(lab.LLAMA, 0.0, " ").splitlines(), 1))
    one, two = answers(read_events(lines, "x"))
    assert [s.index for s in two.steps] == [0, 1, 2, 3]
    assert one.steps[0] == Step(lab.ns(7.0), 0)
    _, two = answers(read_events(lines, "x"), [Stats(output=2), Stats(output=2)])
    assert two.steps == [Step(lab.ns(12.0), 0), Step(lab.ns(12.5), 1), Step(lab.ns(13.0), 2)]
    assert two.start == lab.ns(11.01)


def test_missing_ends_doubles_and_reversals_are_counted():
    text = "prefill.0.start,5\nprefill.0.end,9\ngenerate.decode.0.start,9\nprefill.0.end,8\nreload.0.end,3\nx.start 4\nx.end 2\n"
    found = read_events(enumerate(text.splitlines(), 1), "x")
    assert found.faults == {
        "events there twice": 1, "starts without an end": 1, "ends without a start": 1, "ends before their starts": 1,
    }  # fmt: skip
    (answer,) = answers(found)
    assert (answer.start, answer.steps) == (5, [Step(9, 0)])
    assert not found.coarse


def test_timings_of_the_last_prompts_count():
    text = "".join(
        lab.TIMINGS.format(ms=m, inputs=i, ptps=2.0, outputs=i + 1, tps=3.0) for m, i in ((1, 1), (20.5, 7))
    )
    assert llama_timings(enumerate(text.splitlines(), 1), 1) == [Stats(7, 8, 2.0, 3.0, 20_500_000)]
    assert len(llama_timings(enumerate(text.splitlines(), 1), 2)) == 2
    assert llama_timings(enumerate(text.splitlines(), 1), 3) == []  # nobody knows which is whose


def test_mlc_tells_its_statistics_between_escapes():
    text = (
        "mlc\n\x1b[1mUSER\x1b[0m: /stats\n{\n \x1b[32m\"prefill\": {\n\"throughput\": \"283.4 tok/s\",\n\n\"total tokens\": \"47 tok\",\n"
        "\"total time\": \"0.2 s\"\n},\n\"decode\": {\"throughput\": \"22.7 tok/s\", \"total_tokens\": \"255 tok\"}\n}\nX: /stats\nnothing\n"
    )  # fmt: skip
    assert mlc_statistics(enumerate(text.splitlines(), 1)) == [Stats(47, 255, 283.4, 22.7)]
    assert runtime_stats("[") == runtime_stats(None) == Stats()


# --- which directory, and damage


async def test_several_runs_are_named_with_how_to_import_each(tmp_path):
    for name in ("run_cs512_mgl32", "run_cs512_mgl256"):
        lab.board_llama(
            tmp_path / "experiment_outputs" / "nano" / "LlamaCpp" / "tinyllama" / name, seconds=1.0
        )
    with pytest.raises(
        ConfigError, match=r"got 2; each is a run of its own:\n  melt-stream import melt .*mgl256\n.*mgl32$"
    ):
        await rows(tmp_path)
    importer, _ = await rows(next(tmp_path.rglob("run_cs512_mgl32")) / "melt_measurements")
    assert importer.start_utc_ns == (lab.T0 + 1) * 10**9
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="expected a run directory of PhoneLab or JetsonLab"):
        await rows(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("melt_measurements/measurements_iter0_conv0.tsv", "generate.start x\n", r"conv0\.tsv, line 1: expected 'event\.start ns'"),
        ("melt_measurements/measurements_iter0_conv0.tsv", f"a.start {'9' * 19}\n", r"line 1: expected ns up to 8"),
        ("melt_measurements/measurements_iter0_conv0.csv", "start_date,duration,state\r\n5\r\n", r"line 2: expected start_date,duration,state"),
        ("melt_measurements/measurements_iter0_conv0.csv", "start_date,duration,state\r\n5,-1,x\r\n", r"line 2, duration: expected a number of seconds"),
        ("melt_measurements/measurements_iter0_conv0.csv", "start_date,duration,state\r\n5,1,x\r\n", "expected times of one run, got some that are years apart"),
        ("measurements_ts.csv", "stage,time_start\n", r"line 1: expected columns stage, time_start, time_end, got none of time_end"),
        ("measurements_ts.csv", "stage,time_start,time_end\nRun_0,9,8\n", r"line 2: expected a stage that ends after its start"),
        ("measurements_adb.csv", "timestamp,cpu_util\n5,nan\n4,1\n", r"line 3: expected times that never decrease"),
        ("measurements_adb.csv", "timestamp,cpu_util\n5,x\n", r"line 2, cpu_util: expected a number"),
        ("measurements_monsoon.csv", "Time(ms),Main(mA),\n", r"line 1: expected s, mA and V without a header"),
        ("measurements_monsoon.csv", "2.0,5.0,4.0,\n1.0,5.0,4.0,\n", r"line 2: expected times that never decrease"),
        ("configuration.json", "[]", r"configuration\.json: expected an object, got list"),
        (".t_monsoon", "soon", r"\.t_monsoon, line 1: expected a number of seconds"),
    ],
)  # fmt: skip
async def test_damage_is_told_with_its_place(tmp_path, name, text, expected):
    folder = lab.phone_llama(tmp_path / "run", seconds=1.0)
    (folder / name).write_text(text, newline="")
    with pytest.raises(DataError, match=expected):
        await rows(folder)


async def test_prompts_and_answers_of_different_number_are_not_paired_by_guess(tmp_path):
    folder = lab.phone_llama(tmp_path / "run", seconds=1.0)
    lab.script(folder, lab.ASKED[:2])
    _, found = await rows(folder)
    assert facts(found)["faults"]["conversations whose prompts and answers could not be matched"] == 1
    windows = [r["request"] for r in found["script_events"] if r["kind"] == "window_start"]
    prefills = [r["request"] for r in found["phone_events"] if r["kind"] == "prefill_start"]
    assert (windows, prefills) == ([1], [2, 3])


@pytest.mark.parametrize("write", WRITERS)
async def test_mangled_directories_are_imported_or_refused_with_their_place(tmp_path, write):
    rng, refusals, done = random.Random(20261124), [], 0
    good = partial(write, seconds=0.3)(tmp_path / "good")
    names = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())
    for _ in range(80):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(good, tmp_path / "bad")
        name = rng.choice(names)
        (tmp_path / "bad" / name).write_bytes(mangle((good / name).read_bytes(), rng))
        try:
            await rows(tmp_path / "bad")
        except (DataError, ConfigError) as exc:
            refusals.append(str(exc))
        else:
            done += 1
    assert min(done, len(refusals)) > 5
    assert [message for message in refusals if "expected" not in message] == []


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='abc.start end,0123456789\n{}:/"% ()=', max_size=300))
def test_any_text_is_read_or_refused(text):
    lines = list(enumerate(text.splitlines(), 1))
    for read in (
        lambda: answers(read_events(lines, "x")),
        lambda: list(BoardLog("x").read(lines)),
        lambda: llama_timings(lines, 2),
        lambda: mlc_statistics(lines),
        lambda: runtime_stats(text),
    ):
        with suppress(DataError):
            read()

"""What logs of inference say: recorded lines, written ones, and whatever else may stand there."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.collectors._log_executorch import ExecuTorch
from melt_stream.collectors._log_llamacpp import Bench, Timings
from melt_stream.collectors._log_melt import MeltEvents
from melt_stream.collectors._log_mlc import MlcStats, MlcTrace
from melt_stream.collectors._log_patterns import Pattern, Patterns
from melt_stream.collectors._log_said import NOW, At, Unreadable
from melt_stream.errors import ConfigError

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[2] / "../shared/traces"))
BENCH = TRACES / "llama_server" / "llama_bench.jsonl"
MS, S = 1_000_000, 1_000_000_000
# As ExecuTorch's documentation shows it of a Galaxy S24.
OBSERVED = (
    '"prompt_tokens":14,"generated_tokens":54,"model_load_start_ms":1760077800721,"model_load_end_ms":1760077802998,'
    '"inference_start_ms":1760077802998,"inference_end_ms":1760077804187,"prompt_eval_end_ms":1760077803162,'
    '"first_token_ms":1760077803162,"aggregate_sampling_time_ms":19,"SCALING_FACTOR_UNITS_PER_SECOND":1000'
)


def said(form, *lines):
    """What a format says to these lines: kind, ns, and (request, index, count, prompt) where told."""
    found = [one for line in lines for one in form.take(line)] + list(form.finish())
    return [
        (one.kind, one.at.ns, one.request, *(one.values[c] for c in ("index", "count") if c in one.values))
        for one in found
    ]


def test_executorchs_line_is_a_load_a_prefill_and_a_decode_in_ms():
    form = ExecuTorch()
    load0, load1, sent, start, progress, first, rest, end = form.take(
        f"text before PyTorchObserver {{{OBSERVED}}}"
    )
    assert load0.at == At("realtime", 1760077800721 * MS, MS)
    assert load1.at == start.at == sent.at == At("realtime", 1760077802998 * MS, MS)
    assert (progress.values["prompt_processed"], progress.at) == (14, first.at)
    assert first.at.ns - start.at.ns == 164 * MS  # "Prompt evaluation: 0.164000 (seconds)"
    assert (rest.values["index"], rest.values["count"]) == (53, 53)
    assert rest.at.ns - first.at.ns == 1025 * MS  # "Generated 54 tokens: 1.025000 (seconds)"
    assert (end.kind, end.at) == ("request_end", rest.at)


@pytest.mark.parametrize(
    "line",
    [
        "PyTorchObserver {}",
        'PyTorchObserver {"prompt_tokens": "many"}',
        "PyTorchObserver {" + OBSERVED.replace("1760077804187", "1") + "}",
        "PyTorchObserver {" + OBSERVED.replace("1760077804187", "4" * 18) + "}",
        "PyTorchObserver {" + OBSERVED.replace(":1000", ":0") + "}",
        "PyTorchObserver {" + "[" * 10000 + "}",
    ],
)
def test_a_damaged_line_of_executorchs_is_told(line):
    with pytest.raises(Unreadable, match="expected"):
        ExecuTorch().take(line)


@pytest.mark.skipif(not BENCH.exists(), reason="expected ../shared/traces")
def test_a_real_llama_bench_is_prefills_and_decodes_that_end_with_its_lines():
    form = Bench()
    prompt, generation = (form.take(line) for line in BENCH.read_text().splitlines())
    starts = [one.at.ns for one in prompt if one.kind == "prefill_start"]
    assert starts == [-(703463055 + 1031182908 + 924773391), -(1031182908 + 924773391), -924773391]
    assert [one.values["prompt_processed"] for one in prompt if one.kind == "prefill_progress"] == [64] * 3
    assert [(one.at.ns, one.values["visible"]) for one in prompt if one.kind == "token"][-1] == (0, False)
    tokens = [one for one in generation if one.kind == "token"]
    assert [(one.values["index"], one.values["count"]) for one in tokens] == [(0, 1), (16, 16)] * 3
    assert tokens[-1].at.ns - tokens[-2].at.ns == 3935400448
    assert len({one.request for one in (*prompt, *generation)}) == 6


def test_llama_benchs_test_of_both_is_a_window_and_its_table_says_nothing():
    both = {"n_prompt": 8, "n_gen": 4, "samples_ns": [5]}
    assert said(Bench(), "| model |", json.dumps(both)) == [("window_start", -5, "1"), ("window_end", 0, "1")]
    with pytest.raises(Unreadable, match="n_gen"):
        Bench().take('{"n_prompt": 1}')


SESSION = """llama_print_timings:        load time =     529.85 ms
llama_print_timings:      sample time =      10.51 ms /    64 runs   (    0.16 ms per token,  6089.44 tokens per second)
llama_print_timings: prompt eval time =     186.86 ms /     8 tokens (   23.36 ms per token,    42.81 tokens per second)
llama_print_timings:        eval time =    4016.21 ms /    63 runs   (   63.75 ms per token,    15.69 tokens per second)
llama_print_timings:       total time =    4230.79 ms""".splitlines()


def test_a_sessions_sums_are_one_window_unless_they_are_of_one_prompt():
    assert said(Timings(), *SESSION) == [
        ("window_start", -4230790000, "session 1"), ("window_end", 0, "session 1")
    ]  # fmt: skip
    assert said(Timings(one_prompt=True), *SESSION) == [
        ("request_sent", -4203070000, "session 1"), ("prefill_start", -4203070000, "session 1"),
        ("prefill_progress", -4016210000, "session 1"), ("token", -4016210000, "session 1", 0, 1),
        ("token", 0, "session 1", 63, 63), ("request_end", 0, "session 1"),
    ]  # fmt: skip


SERVER = """0.05.100.000 I slot launch_slot_: id  0 | task 7 | processing task
0.15.100.000 I slot print_timing: id  0 | task 7 |
prompt eval time =    5750.30 ms /   139 tokens (   41.37 ms per token,    24.17 tokens per second)
       eval time =    2000.00 ms /    21 tokens (   95.24 ms per token,    10.50 tokens per second)
      total time =    7750.30 ms /   160 tokens""".splitlines()


def test_a_servers_timings_are_phases_by_its_own_clock_or_by_its_lines():
    end, first = 15100 * MS, 13100 * MS
    start = first - 5750_300_000
    assert said(Timings(), *SERVER) == [
        ("request_sent", 5100 * MS, "7"), ("prefill_start", start, "7"), ("prefill_progress", first, "7"),
        ("token", first, "7", 0, 1), ("token", end, "7", 20, 20), ("request_end", end, "7"),
    ]  # fmt: skip
    bare = [line.partition(" I ")[2] or line for line in SERVER[1:]]
    found = said(Timings(), *bare)
    assert found[0] == ("request_sent", -7750_300_000, "7")
    assert found[-1] == ("request_end", 0, "7")


def test_mlcs_statistics_are_a_mark_a_window_or_one_prompt():
    rates, *none = MlcStats().take("prefill: 170.8 tok/s, decode: 12.5 tok/s")
    assert (rates.kind, rates.at, none) == ("mark", NOW, [])
    assert rates.values["detail"] == {"prefill_tokens_per_s": 170.8, "decode_tokens_per_s": 12.5}
    told = json.dumps({
        "prefill": {"throughput": "175.066 tok/s", "total tokens": "7 tok", "total time": "0.5 s"},
        "decode": {"throughput": 12.9, "total_tokens": 256, "total_time": 2},
    }, indent=1).splitlines()  # fmt: skip
    window = [("window_start", -2500 * MS, "1"), ("window_end", 0, "1")]
    assert said(MlcStats(), *told) == window
    block = ["-- prefill --", "throughput: 1 tok/s", "total tokens: 7 tok", "total time: 0.5 s"]
    block += ["--- decode ---", "total tokens: 256 tok", "total time: 2 s"]
    assert said(MlcStats(), *block) == window
    assert ("token", 0, "1", 256, 256) in said(MlcStats(one_prompt=True), *told)
    with pytest.raises(Unreadable, match="expected the end of the JSON"):
        said(MlcStats(), "{")
    with pytest.raises(Unreadable, match="expected a number"):
        said(MlcStats(), '{"prefill": {"total time": "soon"}, "decode": {}}')


def test_mlcs_trace_tells_each_token_of_each_request():
    def event(name, ph, ts, tid):
        return {"name": name, "ph": ph, "ts": ts, "pid": 1, "tid": tid}

    trace = [event("request added to engine", "i", 100, "a")]
    trace += [event("prefill", ph, ts, "a") for ph, ts in (("B", 110), ("E", 150), ("B", 160), ("E", 200))]
    trace += [event("decode", ph, ts, "a") for ph, ts in (("B", 210), ("E", 250), ("B", 260), ("E", 300))]
    trace += [event("prefill", "B", 300, "b"), event("odd", "i", 5, "c")]
    expected = [
        ("request_sent", 100_000, "a"), ("prefill_start", 110_000, "a"), ("token", 200_000, "a", 0, 1),
        ("token", 250_000, "a", 1, 1), ("token", 300_000, "a", 2, 1), ("request_end", 300_000, "a"),
        ("request_sent", 300_000, "b"), ("prefill_start", 300_000, "b"), ("request_end", 300_000, "b"), ("mark", 5_000, None),
    ]  # fmt: skip
    assert said(MlcTrace(), json.dumps(trace)) == expected
    assert said(MlcTrace(), "before", *json.dumps({"traceEvents": trace}, indent=1).splitlines()) == expected
    for wrong in (
        "[1]",
        "[",
        '{"a": 1}',
        '[{"name": "x", "ph": "B", "ts": -1}]',
        '[{"name": "x", "ph": "B", "ts": 1e30}]',
    ):
        with pytest.raises(Unreadable):
            said(MlcTrace(), wrong)


T = 1712345678 * S
LLAMA = {
    "load_model.start": 0, "load_model.end": 50, "prompt.start": 100, "prompt.0.tokenize.start": 100,
    "prompt.0.tokenize.end": 110, "prompt.end": 200, "generate.start": 200, "generate.0.decode.start": 200,
    "generate.0.decode.end": 250, "generate.1.decode.start": 260, "generate.1.decode.end": 300, "generate.end": 310,
    "model_free.start": 320,
}  # fmt: skip


def test_melts_files_come_in_any_order_and_lack_ends():
    lines = [f"{name} {T + 1 + at * MS}" for name, at in sorted(LLAMA.items())]
    found = sorted((kind, (ns - T) // MS, *rest) for kind, ns, *rest in said(MeltEvents(), *lines))
    assert found == [
        ("load_end", 50, None), ("load_start", 0, None), ("phase_end", 110, None), ("phase_end", 310, None),
        ("phase_start", 100, None), ("phase_start", 200, None), ("phase_start", 320, None), ("prefill_start", 100, "1"),
        ("request_end", 300, "1"), ("request_sent", 100, "1"), ("token", 200, "1", 0, 1), ("token", 250, "1", 1, 1),
        ("token", 300, "1", 2, 1),
    ]  # fmt: skip


def test_melts_apps_write_ms_and_several_prompts():
    names = ["prefill.0", "generate.decode.0", "prefill.1", "generate.decode.1", "generate.decode.2"]
    lines = ["event,timestamp_ns"]
    lines += [
        f"{n}.{edge},{T + (2 * k + (edge == 'end')) * MS}"
        for k, n in enumerate(names)
        for edge in ("start", "end")
    ]
    form = MeltEvents()
    assert [one for line in lines for one in form.take(line)] == []
    found = form.finish()
    assert {one.at.resolution_ns for one in found} == {MS}
    tokens = [
        (one.request, one.values["index"], (one.at.ns - T) // MS) for one in found if one.kind == "token"
    ]
    assert tokens == [("1", 0, 1), ("1", 1, 3), ("2", 0, 5), ("2", 1, 7), ("2", 2, 9)]
    with pytest.raises(Unreadable, match="once"):
        said(MeltEvents(), f"a.start {T}", f"a.start {T + 1}")


def test_patterns_of_ones_own():
    form = Patterns([
        Pattern("prefill_start", r"^P (?P<time>[\d.]+) n=(?P<prompt_total>\d+)", "boottime", "s"),
        Pattern("token", r"^T (?P<time>\d+) (?P<index>\w+)", "relative", "ms"),
        Pattern("request_end", "^done"),
    ])  # fmt: skip
    start, token, end, again = (
        one for line in ("P 12.345 n=7", "T 9 0", "x", "done", "P 13 n=8") for one in form.take(line)
    )
    assert start.at == At("boottime", 12_345 * MS, MS)
    assert (start.request, start.values) == ("1", {"prompt_total": 7})
    assert (token.at, token.request) == (At("relative", 9 * MS, MS), "1")
    assert (end.at, end.request, again.request) == (NOW, "1", "2")
    assert again.at.resolution_ns == S
    with pytest.raises(Unreadable, match="as index, got 'x'"):
        form.take("T 9 x")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (Pattern("token", "("), "expected a regular expression"),
        (Pattern("token", "(?P<tiem>x)"), "expected groups out of .*got 'tiem'"),
        (Pattern("token", "(?P<time>x)"), "expected a group"),
        (Pattern("token", "x", "realtime"), "expected a group"),
    ],
)
def test_a_wrong_pattern_is_refused_before_anything_starts(pattern, message):
    with pytest.raises(ConfigError, match=message):
        Patterns([pattern])


FORMS = [ExecuTorch, Bench, Timings, MlcStats, MlcTrace, MeltEvents]
PIECES = st.sampled_from([
    "PyTorchObserver {", "}", "{", "[", '"prefill":', "prompt eval time = ", "total time = 1e9 ms", " ms / 3 tokens", "1" * 30,
    "slot print_timing: id 0 | task 1 |", "eval time = 99999999999.9 ms", "prompt.start ", "generate.1.decode.end 17", "\x00", "-- decode --",
    "total time: 9e99 s", '"samples_ns": [1]', "0.00.000.001 I ", "prefill: 1 tok/s, decode: 2 tok/s",
])  # fmt: skip


@pytest.mark.parametrize("make", FORMS)
@settings(deadline=None)  # of a busy machine
@given(lines=st.lists(st.lists(PIECES | st.text(max_size=8), max_size=6).map("".join), max_size=6))
def test_whatever_a_line_is_it_is_read_or_told(make, lines):
    form = make()
    for line in [*lines, None]:
        with suppress(Unreadable):
            found = form.finish() if line is None else form.take(line)
            assert all(abs(one.at.ns) < 1 << 62 for one in found)

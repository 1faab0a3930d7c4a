"""Logs of inference, followed on real devices: whose clock an event is on, how well, and what is lost."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.clock import utc_ns
from melt_stream.collectors._log_patterns import Pattern
from melt_stream.collectors.inference_log import InferenceLog
from melt_stream.devices import Local, Place
from melt_stream.devices.adb import Adb
from melt_stream.errors import ConfigError
from melt_stream.harness.session import record_plan
from melt_stream.recipe import parse, plan
from tests.collectors.collecting import collecting
from tests.emulators.playing_android import ADBS, playing, serving

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
TOKENS = [
    {"event": "prefill_start", "pattern": r"P (?P<time>\d+)", "clock": "realtime", "unit": "ms"},
    {"event": "token", "pattern": r"T (?P<index>\d+) (?P<time>[\d.]+)", "clock": "boottime", "unit": "s"},
    {"event": "request_end", "pattern": "done"},
]


def recorded(tmp_path, **workload):
    recipe = {
        "device": {"board": {"local": "/bin/sh"}},
        "workloads": {"app": {"kind": "inference_log", "device": "board", **workload}},
    }
    outcome = record_plan(plan(parse(recipe, "it"), "it"), tmp_path)
    return pack(outcome.path), outcome.ending


def asked(run, query):
    return connect(run.path, query).sql(query).fetchall()


def program(*lines):
    return [sys.executable, "-u", "-c", "\n".join(("import json, sys, time", *lines))]


def test_a_commands_phases_lie_where_they_were_within_the_clocks_bound(tmp_path):
    command = program(
        "ms, host = (lambda: time.time_ns() // 10**6), (lambda: time.monotonic_ns())",
        "a, a_ = ms(), host(); time.sleep(0.1)",
        "b, b_ = ms(), host(); time.sleep(0.2)",
        "c, c_ = ms(), host()",
        "print('PyTorchObserver ' + json.dumps({'prompt_tokens': 9, 'generated_tokens': 5, 'inference_start_ms': a,",
        "    'first_token_ms': b, 'inference_end_ms': c}))",
        "print(json.dumps([a_, b_, c_]))",
    )
    run, ending = recorded(tmp_path, format="executorch", command=command)
    assert ending.error is None
    phases = asked(
        run, "SELECT phase, start_ns, stop_ns, tokens FROM phases WHERE request IS NOT NULL ORDER BY 2"
    )
    assert [(phase, tokens) for phase, _, _, tokens in phases] == [("prefill", 9), ("decode", 4)]
    truth = [
        at - run.manifest.start_ns
        for at in json.loads(asked(run, "SELECT text FROM log ORDER BY t_ns")[-1][0])
    ]
    ((bound,),) = asked(run, "SELECT bound_ns FROM clocks WHERE clock = 'board.realtime_ms'")
    assert 500_000 <= bound < 200_000_000  # a stamp of whole ms is good to half a ms, in the middle
    for at, true in zip([phases[0][1], phases[0][2], phases[1][2]], truth, strict=True):
        assert abs(at - true) <= bound
    assert ("other", "python") in [
        (p, n.partition("3")[0])
        for p, n in asked(run, "SELECT phase, name FROM phases WHERE name IS NOT NULL")
    ]


def test_overlapping_requests_of_a_server_are_packed_though_they_come_in_no_order(tmp_path):
    command = program(
        "time.sleep(0.5)",  # it cannot have taken longer than it runs
        "for task, ms in ((1, 50.0), (2, 200.0)):",
        "    print(f'slot print_timing: id 0 | task {task} |')",
        "    for what, n in (('prompt eval', 7), ('eval', 3), ('total', 10)): print(f'{what} time = {ms} ms / {n} tokens')",
    )
    run, _ = recorded(tmp_path, format="llama_cpp", command=command)
    assert [row[:3] for row in asked(run, "SELECT request, phase, tokens FROM phases WHERE request IS NOT NULL ORDER BY 1, start_ns")] == [
        (1, "prefill", 7), (1, "decode", 2), (2, "prefill", 7), (2, "decode", 2),
    ]  # fmt: skip
    # A line was written after what it tells: nobody knows how long after.
    assert asked(run, "SELECT kind, against, bound_ns FROM clocks WHERE clock = 'app.lines'") == [
        ("one_way", "board.realtime", None)
    ]


def test_a_command_that_fails_ends_the_run_and_what_it_said_is_kept(tmp_path):
    run, ending = recorded(
        tmp_path,
        format="patterns",
        patterns=TOKENS,
        command=program("print('P 1732465712123'); sys.exit('oh')"),
    )
    assert "exit status 1: oh" in str(ending.error)
    assert asked(run, "SELECT kind FROM events WHERE stream = 'wall_ms'") == [("prefill_start",)]


async def test_a_file_is_followed_through_what_happens_to_it(tmp_path):
    path = tmp_path / "app.log"
    log = InferenceLog("patterns", file=str(path), whole=True, patterns=patterns()).on(Place(Local("board")))
    before, now = 5000.0, utc_ns() // 10**6
    async with collecting(log) as watched:
        write(path, f"noise\nP {now}\n")
        await watched.until(lambda: watched.of("wall_ms"))
        write(path, f"T 0 {before + 0.001:.6f}\nT 1 {before + 0.003:.3f}\nT x\n")
        await watched.until(lambda: watched.of("boot_ms"))
        path.write_text("")
        write(path, "done\n")
        await watched.until(lambda: watched.of("lines"))
    assert [row["text"] for row in watched.of("log")][:2] == ["noise", f"P {now}"]
    (start,), (first,), (second,) = watched.of("wall_ms"), watched.of("boot"), watched.of("boot_ms")
    assert (start["kind"], start["tick"], start["request"]) == ("prefill_start", now, first["request"])
    assert (first["index"], first["tick"]) == (0, round((before + 0.001) * 1e6))
    assert (second["index"], second["kind"]) == (1, "token")
    assert [gap["reason"].partition(" was ")[2] for gap in watched.gaps("log")] == [
        "cut short: what was not read yet is lost"
    ]
    readings = {row["clock_of"]: row for row in watched.rows("run.readings")}
    assert readings["board.boottime"]["kind"] == "round_trip"
    assert readings["board.boottime_ms"]["against"] == "board.boottime"
    assert readings["it.lines"]["against"] == "board.realtime"


def patterns():
    return [
        Pattern(one["event"], one["pattern"], one.get("clock", "none"), one.get("unit", "ns"))
        for one in TOKENS
    ]


def write(path, text):
    with path.open("a") as file:
        file.write(text)


async def test_a_programs_own_clock_begins_again_with_the_program(tmp_path):
    command = program(
        "for start in (5, 1):",
        "    for us in (0, 300): print(f'0.0{start}.000.{us:03} I slot launch_slot_: id  0 | task {us} | processing task')",
        "time.sleep(1000)",
    )
    async with collecting(InferenceLog("llama_cpp", command=command)) as watched:
        await watched.until(lambda: len(watched.of("relative")) == 4)
    assert [(row["epoch"], row["tick"]) for row in watched.of("relative")] == [
        (0, 5_000_000), (0, 5_000_300), (1, 1_000_000), (1, 1_000_300)
    ]  # fmt: skip
    assert {row["kind"] for row in watched.rows("run.readings") if row["clock_of"] == "it.relative"} == {
        "arrival"
    }


async def test_a_damaged_line_is_a_gap_and_the_log_goes_on(tmp_path):
    command = program("print('PyTorchObserver {]}')", "print('fine')", "time.sleep(1000)")
    async with collecting(InferenceLog("executorch", command=command)) as watched:
        await watched.until(lambda: len(watched.of("log")) == 2)
        await watched.until(watched.gaps)
    assert "expected PyTorchObserver as JSON, got '{]}'" in watched.gaps("log")[0]["reason"]


async def test_melts_files_are_read_when_they_stand_still(tmp_path):
    path = tmp_path / "measurements.tsv"
    log = InferenceLog("melt_events", file=str(path), whole=True, settle_s=0.3)
    now = utc_ns() // 1000 * 1000 + 1
    async with collecting(log) as watched:
        write(path, f"prompt.end {now + 100}\ngenerate.0.decode.end {now + 5000}\nprompt.start {now}\n")
        await watched.until(lambda: watched.of("wall"))
    assert [row["kind"] for row in watched.of("wall")] == [
        "request_sent", "prefill_start", "token", "token", "request_end"
    ]  # fmt: skip


async def test_on_a_phone_its_logcat_has_its_own_stamps_and_files_its_clock(tmp_path):
    tool, path = tmp_path / "logcat", tmp_path / "x.log"
    tool.write_text(
        "#!/bin/sh\necho '--------- beginning of main'\n"
        'echo " 1732465712.123456789  1  2 I App: done"\nexec sleep 100\n'
    )
    tool.chmod(0o755)
    with serving(ADBS[0]) as server:
        async with playing() as (_, it):
            place = Place(Adb("phone", it["serial"], port=server.port))
            with_tool = InferenceLog("patterns", logcat=["App:I"], patterns=patterns()).on(place)
            with_tool._items = lambda out: place.lines(out, [str(tool), "-v", "epoch"])
            async with collecting(with_tool) as watched:
                await watched.until(lambda: watched.of("wall"))
            assert watched.of("wall")[0]["tick"] == 1732465712_123456
            path.write_text("done\n")
            async with collecting(
                InferenceLog("patterns", file=str(path), whole=True, patterns=patterns()).on(place)
            ) as watched:
                await watched.until(lambda: watched.of("lines"))
            assert {row["clock_of"] for row in watched.rows("run.readings")} >= {
                "phone.realtime",
                "it.lines",
                "phone.boottime",
            }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "mlc"}, "expected one of file, logcat and command, got none"),
        ({"format": "mlc", "file": "x", "command": ["y"]}, "expected one of file"),
        ({"format": "mlc", "file": "x", "patterns": patterns()}, "patterns: expected some with"),
        ({"format": "patterns", "file": "x"}, "patterns: expected some with"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        InferenceLog(**fields)

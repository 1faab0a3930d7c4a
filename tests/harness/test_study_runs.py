"""Studies as they are made: interrupted in every way and gone on with, around their runs, and what is told of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from melt_stream.cli._app import run as cli
from melt_stream.harness.study import conduct, read
from melt_stream.harness.study.conduct import held
from melt_stream.lock import Locked
from melt_stream.run import runs
from melt_stream.testing import FakeTree
from tests.harness.studies import Noting, ask, made, shell, study

GATED = """
[collectors.cpu]
hz = 20.0
[workloads.command]
arguments = ["/bin/sh", "-c", "echo begun >{begun}; read go <{go}"]
[study]
repeat = 2
[study.axes.rate]
key = "collectors.cpu.hz"
values = [10.0, 20.0]
"""
"""Each run says that it has begun, and ends when it is let go."""
DONE = (
    "SELECT points->>'rate', repetition, count(*) FILTER (outcome = 'done'), count(*) FILTER (outcome = 'interrupted') "
    "FROM runs GROUP BY ALL ORDER BY 2, 1"
)


class Gated:
    """A study of four runs in a process of its own, which the test lets go on one by one."""

    def __init__(self, folder: Path) -> None:
        self.archive, self.file = folder / "archive", folder / "gated.toml"
        self.begun, self.go = folder / "begun", folder / "go"
        self.file.write_text(GATED.format(begun=self.begun, go=self.go))
        os.mkfifo(self.begun)
        os.mkfifo(self.go)

    def start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "melt_stream", "run", str(self.file), "--archive", str(self.archive)]
        return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)

    def wait_for_a_run(self) -> None:
        assert self.begun.read_text() == "begun\n"

    def let_go(self) -> None:
        self.go.write_text("go\n")

    def end(self, process: subprocess.Popen[str], number: signal.Signals) -> str:
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        return said

    def states(self) -> list[str]:
        return [run.state for run in runs(self.archive)]


def test_killed_twice_in_the_middle_of_a_run_it_is_made_whole_by_the_same_command(tmp_path):
    gated = Gated(tmp_path)
    first = gated.start()
    gated.wait_for_a_run()
    gated.let_go()
    gated.wait_for_a_run()
    gated.end(first, signal.SIGKILL)
    assert gated.states() == ["packed", "interrupted"]
    second = gated.start()
    gated.wait_for_a_run()
    gated.let_go()
    gated.wait_for_a_run()
    gated.end(second, signal.SIGKILL)
    assert gated.states() == ["packed", "interrupted", "packed", "interrupted"]
    third = gated.start()
    for _ in range(2):
        gated.wait_for_a_run()
        gated.let_go()
    _, said = third.communicate(timeout=60)
    assert third.returncode == 0, said
    assert "[3/4] cell 1 of 2, rate=10.0, repetition 2" in said
    assert "[1/4]" not in said
    assert ask(gated.archive, DONE) == [
        ("10.0", 1, 1, 0),
        ("20.0", 1, 1, 1),
        ("10.0", 2, 1, 1),
        ("20.0", 2, 1, 0),
    ]
    assert ask(
        gated.archive,
        "SELECT list(attempt ORDER BY run) FROM runs WHERE repetition = 2 AND points->>'rate' = '10.0'",
    ) == [([1, 2],)]
    assert ask(gated.archive, "SELECT state, done, interrupted FROM cells ORDER BY points") == [
        ("done", 2, 1),
        ("done", 2, 1),
    ]
    assert made(read(gated.file), gated.archive) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_signal_it_stops_in_order_and_goes_on_later(tmp_path, number):
    gated = Gated(tmp_path)
    first = gated.start()
    gated.wait_for_a_run()
    said = gated.end(first, number)
    assert first.returncode == 1
    assert "interrupted: the same command goes on where it stopped" in said
    assert gated.states() == ["finished"]
    assert ask(gated.archive, "SELECT outcome, failure FROM runs") == [("interrupted", None)]
    second = gated.start()
    gated.wait_for_a_run()
    gated.let_go()
    gated.wait_for_a_run()
    gated.end(second, number)
    assert ask(gated.archive, DONE) == [("10.0", 1, 1, 1), ("20.0", 1, 0, 1)]


def test_two_processes_do_not_make_one_study_at_once(tmp_path):
    one = study({}, name="mine")
    with held("mine", tmp_path), pytest.raises(Locked, match="study mine: expected it to be free"):
        made(one, tmp_path)
    assert made(one, tmp_path) == [("the only cell", 1, False, "done")]


def test_warm_ups_are_made_first_kept_and_marked(tmp_path):
    one = study(
        {"warmup": 2, "repeat": 1, "axes": {"hz": {"key": "collectors.cpu.hz", "values": [5.0, 10.0]}}}
    )
    assert [told[2] for told in made(one, tmp_path)] == [True, True, False] * 2
    assert ask(tmp_path, "SELECT warmup, count(*), any_value(study) FROM runs GROUP BY ALL ORDER BY 1") == [
        (False, 2, "mine"), (True, 4, "mine"),
    ]  # fmt: skip
    assert ask(tmp_path, "SELECT state, wanted, done, warmups FROM cells") == [("done", 1, 1, 2)] * 2


def test_only_some_cells_and_more_repetitions_later(tmp_path):
    table: dict[str, Any] = {"axes": {"hz": {"key": "collectors.cpu.hz", "values": [5.0, 10.0]}}}
    one = study(table)
    assert [told[0] for told in made(one, tmp_path, cells=one.only(["hz=10.0"]))] == ["hz=10.0"]
    more = study({**table, "repeat": 2})
    assert [told[:2] for told in made(more, tmp_path)] == [("hz=5.0", 1), ("hz=5.0", 2), ("hz=10.0", 2)]


def test_commands_go_before_and_after_each_run_however_it_ends(tmp_path):
    log = tmp_path / "log"

    def note(word: str) -> list[str]:
        return ["/bin/sh", "-c", f"echo {word} >>{log}"]

    table = {
        "before": {"mode": {"run": note("before"), "device": "board"}},
        "after": {"back": {"run": note("after")}},
        "axes": {
            "mode": {
                "good": shell(f"echo run >>{log}"),
                "bad": {**shell("exit 1"), "study.before.mode.run": note("bad")},
                "worse": {"study.before.mode.run": ["false"]},
            }
        },
    }
    one = study(table, device={"board": {"local": "/bin/sh"}})
    assert [told[3] for told in made(one, tmp_path / "archive")] == ["done", "failed", "failed"]
    assert log.read_text().split() == ["before", "run", "after", "bad", "after", "after"]


def test_a_run_waits_until_its_device_has_cooled_down(tmp_path):
    """The zone is hot until the wait has begun; another one stays hot and does not count."""
    zones = {f"sys/class/thermal/thermal_zone{n}/{file}": text for n, hot in enumerate(("cpu", "skin"))
             for file, text in (("type", f"{hot}\n"), ("temp", "80000\n"))}  # fmt: skip
    tree = FakeTree(tmp_path / "tree", zones)
    one = study(
        {"cooldown": {"collector": "thermal", "until_c": 45.0, "label": "cpu"}},
        collectors={"thermal": {"hz": 20.0, "root": str(tree.root)}},
    )

    class Cooling(Noting):
        def waits(self, slot, where):
            super().waits(slot, where)
            threading.Timer(0.5, tree.write, ["sys/class/thermal/thermal_zone0/temp", "44000\n"]).start()
            return []

    noting = Cooling()
    conduct(one, tmp_path / "archive", noting)
    [run] = runs(tmp_path / "archive")
    cooled = run.manifest.study["cooldown"]
    assert noting.waits_for == ["the only cell"]
    assert (cooled["celsius"], cooled["reached"]) == (44.0, True)
    assert cooled["seconds"] >= 0.4


def test_a_run_that_never_gets_cool_is_made_all_the_same_and_says_so(tmp_path):
    tree = FakeTree(
        tmp_path / "tree",
        {"sys/class/thermal/thermal_zone0/type": "cpu\n", "sys/class/thermal/thermal_zone0/temp": "80000\n"},
    )
    one = study(
        {"cooldown": {"collector": "thermal", "until_c": 45.0, "at_most_s": 0.3}},
        collectors={"thermal": {"hz": 20.0, "root": str(tree.root)}},
    )
    assert made(one, tmp_path / "archive")[0][3] == "done"
    [run] = runs(tmp_path / "archive")
    assert (run.manifest.study["cooldown"]["celsius"], run.manifest.study["cooldown"]["reached"]) == (
        80.0,
        False,
    )


def test_a_plan_says_what_is_known_and_never_zero_for_what_is_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("""
[collectors.cpu_estimate]
hz = 50.0
[workloads.command]
arguments = ["/bin/sh", "-c", "sleep 0.3"]
[study]
repeat = 2
timeout_s = 30.0
[study.axes.how]
quick = {}
fixed = { seconds = 0.5, remove = ["workloads"] }
broken = { "workloads.command.arguments" = ["no-such-program"] }
""")

    def plan(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert cli(("run", "mine.toml", "--plan", "--json", *more)) == 0
        return json.loads(capsys.readouterr().out)

    before = plan()
    assert [(row["seconds"], row["at_most_s"], row["joules"], row["bytes"]) for row in before["cells"]] == [
        (None, 30.0, {}, None), (0.5, 0.5, {}, None), (None, 30.0, {}, None),
    ]  # fmt: skip
    assert before["left"] == {"runs": 6, "seconds": None, "joules": None, "bytes": None}
    assert not list(tmp_path.glob("melt-archive/2*"))
    assert plan("--only", "how=fixed")["left"]["seconds"] == 1.0
    assert cli(("run", "mine.toml", "--only", "how=quick", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2
    assert cli(("run", "mine.toml", "--only", "how=broken")) == 1
    assert "configuration: ConfigError" in capsys.readouterr().err
    quick, fixed, broken = plan()["cells"]
    assert (quick["to_do"], quick["done"], quick["seconds_from"]) == (0, 2, "measured")
    assert quick["seconds"] > 0
    [(meter, joules)] = quick["joules"].items()
    assert meter.startswith("host, ")
    assert meter.endswith(", estimated")
    assert joules > 0
    assert quick["bytes"] > 10_000
    assert (broken["to_do"], broken["failed"], broken["skipped"], broken["seconds"]) == (0, 1, 1, None)
    assert fixed["to_do"] == 2
    assert cli(("run", "mine.toml", "--plan")) == 0
    shown = capsys.readouterr().out
    assert "2 runs to do; expected: time 1.0 s; energy unknown; disk unknown" in shown


def test_a_recipe_takes_none_of_a_studys_options(tmp_path, capsys):
    path = tmp_path / "plain.toml"
    path.write_text("seconds = 0.1\n[collectors.cpu]\n")
    assert cli(("run", str(path), "--plan")) == 2
    assert "expected a study for --plan" in capsys.readouterr().err


def test_a_studys_runs_tell_their_devices_and_conditions(tmp_path):
    one = study(
        {"axes": {"room": {"key": "conditions.ambient_c", "values": [18.5, 30.0]}}},
        device={"board": {"local": "/bin/sh"}},
        conditions={"ambient_c": 0.0, "board": {"case": "none"}},
    )
    made(one, tmp_path)
    told = ask(tmp_path, "SELECT link, address, cores, error FROM devices WHERE device = 'board'")
    assert told == 2 * [("local", "/bin/sh", os.cpu_count(), None)]
    assert ask(tmp_path, "SELECT device, name, value, text FROM conditions ORDER BY device, value") == [
        *2 * [("board", "case", None, "none")],
        (None, "ambient_c", 18.5, "18.5"),
        (None, "ambient_c", 30.0, "30.0"),
    ]

"""The command line from the outside: what it prints, where, and its exit status."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from melt_stream.cli._app import run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process, in a folder of its own: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MELT_ARCHIVE", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run(arguments)
        said = capfd.readouterr()
        return status, said.out, said.err

    return call


def recorded(cli: Cli, *arguments: str) -> dict[str, Any]:
    status, out, err = cli("record", "--json", *(arguments or ("-c", "cpu", "--seconds", "0.3")))
    assert status == 0, err
    return json.loads(out)


def python(code: str) -> tuple[str, str, str]:
    return (sys.executable, "-c", code)


def test_help_and_mistakes(cli: Cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert all(name in out for name in ("run", "record", "energy", "sql", "doctor", "import"))
    assert cli("no-such-command")[0] == 2
    assert cli("record", "--no-such-option")[0] == 2
    assert cli("--version")[1].strip()


def test_record_says_where_the_run_is_and_sql_answers(cli: Cli):
    where = recorded(cli)
    assert Path(where["path"]).name == where["run"]
    status, out, _ = cli("sql", "SELECT count(*) AS n, count(DISTINCT run) AS runs FROM cpu", "--json")
    assert status == 0
    [row] = json.loads(out)
    assert row["n"] > 0
    assert row["runs"] == 1
    assert json.loads(cli("sql", "FROM clocks", "--run", where["run"], "--json")[1])
    assert json.loads(cli("sql", "FROM tokens", "--json")[1]) == []


def test_any_run_tells_each_clocks_offset_drift_and_bound(cli: Cli):
    recorded(cli)
    rows = {row["clock"]: row for row in json.loads(cli("sql", "from clocks", "--json")[1])}
    assert {"host.realtime", "host.boottime"} <= rows.keys()
    for row in rows.values():
        assert row["offset_lo_ns"] <= row["offset_ns"] <= row["offset_hi_ns"]
        assert abs(row["drift_ppm"]) <= max(row["drift_bound_ppm"], 500)
        assert 0 <= row["bound_ns"] < 10**8
        assert row["readings"] > 1
    assert rows["host.boottime"]["drift_ppm"] == 0  # the host's own oscillator


def test_sql_as_csv_and_as_parquet(cli: Cli, tmp_path: Path):
    recorded(cli)
    rows = list(
        csv.reader(cli("sql", "SELECT instance, stream FROM streams ORDER BY ALL", "--csv")[1].splitlines())
    )
    assert rows[0] == ["instance", "stream"]
    assert ["cpu", "cpu"] in rows
    assert cli("sql", "SELECT 1 AS one", "--parquet", "one.parquet")[0] == 0
    assert pq.read_table(tmp_path / "one.parquet").to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    "query", ["COPY (SELECT 1) TO 'x.csv'", "SELECT nonsense FROM runs", "SELECT 1; SELECT 2"]
)
def test_sql_that_writes_or_is_wrong_fails_with_a_sentence(cli: Cli, tmp_path: Path, query: str):
    recorded(cli)
    status, out, err = cli("sql", query)
    assert (status, out) == (2, "")
    assert err.startswith("melt-stream: ")
    assert "Traceback" not in err
    assert not (tmp_path / "x.csv").exists()


def test_an_archive_that_is_not_there_is_named(cli: Cli, tmp_path: Path):
    status, _, err = cli("sql", "FROM runs", "--archive", str(tmp_path / "nowhere"))
    assert status == 2
    assert "nowhere" in err
    assert cli("energy", "last")[0] == 2


def test_the_archive_comes_from_the_environment(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MELT_ARCHIVE", str(tmp_path / "elsewhere"))
    assert Path(recorded(cli)["path"]).parent == tmp_path / "elsewhere"


def test_a_commands_exit_status_is_passed_on_and_its_output_left_alone(cli: Cli):
    status, out, err = cli("record", "-c", "cpu", "--", *python("print('mine'); raise SystemExit(7)"))
    assert status == 7
    assert out == "mine\n"
    assert "run " in err
    [row] = json.loads(cli("sql", "SELECT phase, request FROM phases WHERE phase = 'window'", "--json")[1])
    assert row["request"] == 1


def test_a_failure_of_ours_around_a_command_is_125(cli: Cli):
    assert cli("record", "-c", "no_such_collector", "--", *python("pass"))[0] == 125
    assert cli("record", "-c", "cpu", "--", "no-such-program-here")[0] == 127


def test_energy_without_power_is_inconclusive(cli: Cli):
    recorded(cli, "-c", "cpu", "--", *python("pass"))
    status, out, err = cli("energy", "last", "--json")
    assert status == 3
    assert "window" in {row["phase"] for row in json.loads(out)["phases"]}
    assert all(row["joules"] is None for row in json.loads(out)["phases"])
    assert "nothing measured power" in err


def test_energy_of_an_estimate_says_so(cli: Cli):
    recorded(cli, "-c", "cpu_estimate:hz=50", "--", *python("sum(range(10**6))"))
    status, out, _ = cli("energy", "last", "--json")
    assert status == 0
    [window] = [row for row in json.loads(out)["phases"] if row["phase"] == "window"]
    assert window["joules"] > 0
    assert window["joules_u"] > 0
    assert window["quality"] == "estimated"
    assert "estimated" in cli("energy", "last")[1]


def test_runs_are_tagged_noted_and_removed(cli: Cli):
    name = recorded(cli)["run"]
    assert cli("runs", "tag", name, "good", "first")[0] == 0
    assert cli("runs", "note", name, "on mains")[0] == 0
    [listed] = json.loads(cli("runs", "--json")[1])
    assert (listed["run"], sorted(listed["tags"]), listed["note"]) == (name, ["first", "good"], "on mains")
    assert cli("runs", "rm", name, "--yes")[0] == 0
    assert json.loads(cli("runs", "--json")[1]) == []


def test_export_and_pack_again(cli: Cli, tmp_path: Path):
    recorded(cli)
    assert cli("export", "last", "--csv", "as_csv", "--parquet", "as_parquet")[0] == 0
    assert (tmp_path / "as_csv").exists()
    assert any("cpu" in path.name for path in (tmp_path / "as_parquet").iterdir())
    assert cli("export", "last")[0] == 2
    before = json.loads(cli("sql", "SELECT * FROM cpu ORDER BY ALL", "--json")[1])
    assert cli("pack", "last", "--again")[0] == 0
    assert json.loads(cli("sql", "SELECT * FROM cpu ORDER BY ALL", "--json")[1]) == before


def test_report_is_one_file(cli: Cli, tmp_path: Path):
    recorded(cli, "-c", "cpu_estimate:hz=50", "--seconds", "0.3")
    status, out, _ = cli("report", "last", "--out", "page.html", "--json")
    assert status == 0
    assert json.loads(out)["report"] == "page.html"
    assert "<html" in (tmp_path / "page.html").read_text()[:1000]


def test_import_names_what_there_is(cli: Cli):
    status, _, err = cli("import", "energyrunnr", ".")
    assert status == 2
    assert "did you mean 'energyrunner'?" in err
    assert json.loads(cli("runs", "--json")[1]) == []


def test_doctor_and_collectors_tell_of_every_plug_in(cli: Cli):
    checks = {check["name"]: check for check in json.loads(cli("doctor", "--json")[1])["checks"]}
    assert checks["cpu"]["ok"]
    assert all(check["ok"] or check["cure"] for check in checks.values())
    names = {plug_in["name"] for plug_in in json.loads(cli("collectors", "--json")[1])["plugins"]}
    assert {"cpu", "rapl", "llama", "energyrunner"} <= names
    settings = json.loads(cli("collectors", "cpu", "--json")[1])["settings"]
    assert "hz" in {setting["setting"] for setting in settings}
    assert cli("collectors", "nothing")[0] == 2


def test_a_signal_ends_a_recording_in_order(tmp_path: Path):
    child = subprocess.Popen(
        [sys.executable, "-m", "melt_stream", "record", "-c", "cpu:hz=50", "--archive", tmp_path, "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        journals = tmp_path.glob("*/journal/cpu.cpu.arrows")
        while not any(path.stat().st_size for path in journals):  # ends with pytest's time limit
            journals = tmp_path.glob("*/journal/cpu.cpu.arrows")
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0
    assert run(["sql", "FROM runs", "--archive", str(tmp_path)]) == 0
    assert (Path(json.loads(out)["path"]) / "manifest.json").read_text().count("SIGINT") >= 1

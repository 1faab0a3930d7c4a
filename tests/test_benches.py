"""The harness of the benches: what it says of numbers. That each bench runs is shown by ``python -m benches --quick``."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benches import __main__ as command
from benches import machine, measure, peers, table
from benches.figures import Figure, at_least, at_most
from benches.measure import Took

ROOT = Path(__file__).parents[1]


def test_the_median_decides_whether_a_target_is_met() -> None:
    assert Figure("a", [1.0, 5.0, 9.0], "x", at_least(5.0)).met is True
    assert Figure("a", [1.0, 5.0, 9.0], "x", at_least(5.1)).met is False
    assert Figure("a", [0.3, 0.4, 0.1], "s", at_most(0.3)).met is True
    assert Figure("a", [0.31], "s", at_most(0.3)).met is False
    assert Figure("a", [1.0], "x").met is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4, "s", "400 ms"),
        (1.234, "s", "1.23 s"),
        (3e-5, "s", "30.0 us"),
        (12_345_678.0, "rows/s", "12.3 M rows/s"),
        (1500.0, "rows/s", "1.50 k rows/s"),
        (5.1e6, "B", "5.10 MB"),
        (1234.0, "x", "1,234 x"),
        (0.0, "%", "0 %"),
    ],
)
def test_numbers_are_short(value: float, unit: str, text: str) -> None:
    assert Figure("a", [value], unit).show(value) == text


def test_cases_run_in_turn_and_each_comes_first_once() -> None:
    said: list[str] = []
    cases = {name: (lambda n=name: said.append(n)) for name in "abc"}
    times = measure.in_turn(cases, 3)
    assert "".join(said) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_work_that_times_itself_is_believed() -> None:
    assert measure.took(lambda: Took(7.0, 3.0)) == (7.0, 3.0)


def test_the_table_replaces_what_is_between_the_markers_only(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    figures = [Figure("speed", [3.0, 2.0, 4.0], "x", at_least(4.0)), Figure("size", [5e6], "B")]
    table.write(table.page({"CPU": "a fast one"}, {"one": "First"}, {"one": figures}), path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert "* CPU: a fast one" in text
    assert "### First" in text
    assert "| speed | 3.00 x | 2.00 x to 4.00 x | >= 4.00 x | **not met** |" in text
    assert "| size | 5.00 MB |  |  |  |" in text
    table.write("new", path)
    assert table.BEGIN in path.read_text()


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("by hand\n")
    with pytest.raises(ValueError, match="expected the lines"):
        table.write("new", path)
    assert path.read_text() == "by hand\n"


def test_the_page_in_the_repository_has_its_markers() -> None:
    text = table.README.read_text()
    assert text.index(table.BEGIN) < text.index(table.END)


def test_every_bench_is_a_module_with_a_run() -> None:
    assert all(callable(import_module(f"benches.{name}").run) for name in command.BENCHES)


def test_the_machine_is_told() -> None:
    facts = machine.facts()
    assert {"when", "CPU", "memory", "kernel", "Python", "packages"} <= facts.keys()
    assert all(facts.values())


def test_an_unknown_bench_is_refused_with_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benches", "speed"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "alignment" in done.stderr
    assert "speed" in done.stderr


def test_the_peers_agree_on_a_small_job() -> None:
    job = peers.make(5_000, 300)
    assert (job.start <= job.stop).all()
    assert (job.stop[:-1] <= job.start[1:]).all()
    assert job.t[0] <= job.start[0]
    assert job.stop[-1] <= job.t[-1]
    wanted = peers.with_numpy(job)
    for work in (peers.with_pandas, peers.with_polars, peers.with_duckdb):
        assert work(job) == pytest.approx(wanted, rel=1e-9)

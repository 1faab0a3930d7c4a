"""A study's page and tables: what was put into its runs comes out, by cell, with intervals."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.compare import study_keys
from melt_stream.analysis.study.battery import joules_of
from melt_stream.analysis.study.pareto import front
from melt_stream.cli._app import run as cli
from melt_stream.errors import ConfigError
from melt_stream.harness.study.reported import material, studies
from melt_stream.run import Run
from tests import packed_run

WIDTHS = {"q8_0": 1.0, "q4_0": 0.8}


def ran(archive, number, quantisation, repetition, **more) -> Run:
    usual = packed_run.WATTS["decode"]
    packed_run.WATTS["decode"] = usual * WIDTHS[quantisation] * (1 + 0.01 * (-1) ** repetition)
    try:
        run = packed_run.write(archive / f"202611{10 + number}T000000.000Z-aaaa", packed_run.story(gap=None))
    finally:
        packed_run.WATTS["decode"] = usual
    run.manifest.cell = f"cell-{quantisation}"
    run.manifest.study = {
        "name": "widths", "points": {"quantisation": quantisation, "threads": "1"}, "repetition": repetition, "attempt": 1,
        "warmup": False, "wanted": 3, **more,
    }  # fmt: skip
    run.manifest.conditions = {"host": {"peak_bandwidth_gb_per_s": 0.5}} if quantisation == "q4_0" else {}
    run.manifest.models = {
        "llama": {
            "model": "m",
            "weight_bytes": 5_000_000,
            "kv_bytes_per_token": {"F16": 1000.0},
            "quantisation": quantisation.upper(),
            "bits_per_weight": 8.5,
            "bytes": 1 << 20,
            "sha256": quantisation,
        }
    }
    run.manifest.save(run.path)
    return run


@pytest.fixture
def archive(tmp_path):
    number = 0
    for repetition in (1, 2, 3):
        for quantisation in WIDTHS:
            ran(tmp_path, number, quantisation, repetition)
            number += 1
    ran(tmp_path, number, "q8_0", 0, warmup=True)
    failed = ran(tmp_path, number + 1, "q8_0", 4, failure="oom")
    failed.manifest.exit = {
        "reason": "failed",
        "error": "DeviceError: no memory",
        "signal": None,
        "status": None,
    }
    failed.manifest.save(failed.path)
    return tmp_path


def test_each_cells_figures_are_of_its_finished_runs(archive):
    assert studies(archive) == ["widths"]
    found = material(archive, "widths")
    assert found.axes == ["quantisation", "threads"]
    cells = {cell.points["quantisation"]: cell for cell in found.cells}
    assert {name: cell.counts["done"] for name, cell in cells.items()} == {"q8_0": 3, "q4_0": 3}
    assert list(cells["q8_0"].failures) == ["oom"]
    figure = {name: cell.figures["decode.j_per_token"] for name, cell in cells.items()}
    assert figure["q4_0"].value / figure["q8_0"].value == pytest.approx(0.8, rel=1e-3)
    for one in figure.values():
        assert one.low < one.value < one.high
        assert one.count == 3
    assert cells["q8_0"].experience["requests"] == 9
    assert len(found.runs) == 8


def test_the_page_needs_no_network_and_links_every_run(archive, capsys):
    assert cli(["report", "widths", "--archive", str(archive), "--tables", str(archive / "t"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    text = re.sub(r"<script>.*?</script>", "", (archive / "study-widths.html").read_text(), flags=re.DOTALL)
    assert told["report"] == str(archive / "study-widths.html")
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    links = re.findall(r'href="(2026[^"]*)"', text)
    assert len(links) == 8 + 6  # every run, and those that a cell's figures are of
    assert (
        len({link for link in links if (archive / link).exists()}) == 6
    )  # those that count have a report of their own
    assert "2 cells, 6 finished runs, axes: quantisation, threads" in text
    flat = pq.read_table(archive / "t" / "cells.parquet").to_pylist()
    assert {(row["quantisation"], row["runs"]) for row in flat if row["metric"] == "decode.j_per_token"} == {
        ("Q8_0", 3),
        ("Q4_0", 3),
    }
    assert (archive / "t" / "runs.csv").read_text().count("\n") == 9


def test_how_memory_bound_a_decode_is_where_the_peak_is_told(archive):
    cells = {cell.points["quantisation"]: cell for cell in material(archive, "widths").cells}
    assert cells["q8_0"].experience["memory_bound"] is None
    speed = cells["q4_0"].figures["decode.tokens_per_s"].value
    context = (40 + 64 / 2 + 60 + 64 / 2 + 24 + 96 / 2) / 3
    assert cells["q4_0"].experience["memory_bound"] == pytest.approx((5e6 + 1000 * context) * speed / 0.5e9)


@pytest.mark.parametrize(
    ("text", "joules"), [("4410mAh@3.85V", 4410 * 3.6 * 3.85), ("17 Wh", 61_200), ("17000mWh", 61_200)]
)
def test_a_battery_is_worth_so_many_requests(archive, text, joules):
    assert joules_of(text) == pytest.approx(joules)
    for cell in material(archive, "widths", joules_of(text)).cells:
        each, charge = cell.figures["request.j_per_request"], cell.figures["request.per_charge"]
        assert charge.value == pytest.approx(joules / each.value)
        assert charge.low < charge.value < charge.high


@pytest.mark.parametrize("text", ["", "4410mAh", "17", "1.2.3Wh", "lots"])
def test_a_battery_that_is_none_says_what_is(text):
    with pytest.raises(ConfigError, match="--battery: expected a charge"):
        joules_of(text)


def test_a_page_elsewhere_still_leads_to_the_runs(archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "page.html"
    assert cli(["report", "widths", "--archive", str(archive), "--out", str(out)]) == 0
    assert f'href="{archive.as_uri()}/20261110' in out.read_text()


def test_tables_are_of_studies_alone(archive, capsys):
    assert cli(["report", "last", "--archive", str(archive), "--tables", str(archive / "t")]) == 2
    assert "expected the name of a study" in capsys.readouterr().err


def test_runs_of_a_study_are_pairs_by_what_the_sides_share(archive):
    runs = {
        q: [
            Run(p)
            for p in sorted(archive.glob("2*"))
            if (s := Run(p).manifest.study)["points"]["quantisation"] == q and not s["warmup"]
        ]
        for q in WIDTHS
    }
    a, b = runs["q8_0"][:3], runs["q4_0"]
    assert study_keys([a, b]) == [[("1", n) for n in (1, 2, 3)]] * 2
    assert study_keys([a + b, a]) == [[None] * 6, [None] * 3]  # two runs of one side would have one key
    b[0].manifest.study = {}
    assert study_keys([a, b]) == [[None] * 3] * 2


numbers = st.one_of(st.none(), st.integers(0, 5))


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_nothing_beats_what_is_on_the_front_and_something_beats_the_rest(points):
    best = front(points, [True, False])

    def beats(a, b):
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    known = [p for p in points if None not in p]
    for point, is_best in zip(points, best, strict=True):
        assert is_best == (None not in point and not any(beats(other, point) for other in known))

"""Comparisons: differences that are known by construction come out, with intervals that hold, and like is compared with like."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from melt_stream.analysis.compare import Budget, compare, side
from melt_stream.analysis.compare.common import ratio_u
from melt_stream.analysis.compare.statistics import difference, typical
from melt_stream.analysis.compare.told import notes, payload, tables
from melt_stream.cli._app import run as cli
from melt_stream.errors import ConfigError, Inconclusive
from tests import packed_run

FAST, SLOW = 0.9, 1.0


def ran(folder: Path, number: int, watts: float = 1.0, **changes):
    """A packed run whose decode takes ``watts`` of the usual power, and its own little scatter."""
    usual = packed_run.WATTS["decode"]
    packed_run.WATTS["decode"] = usual * watts * (1 + 0.004 * (-1) ** number)
    try:
        return packed_run.write(
            folder / f"2026112{number}T000000.000Z-aaaa", packed_run.story(gap=None, **changes)
        )
    finally:
        packed_run.WATTS["decode"] = usual


@pytest.fixture
def groups(tmp_path):
    return [ran(tmp_path, n) for n in range(4)], [ran(tmp_path, n + 4, FAST) for n in range(4)]


def result(told, metric):
    (found,) = [one for one in told.results if one.metric == metric]
    return found


def test_a_known_difference_lies_in_its_interval(groups):
    told = compare([side("a", groups[0]), side("b", groups[1])])
    assert told.by == "run"
    found = result(told, "decode.j_per_token").difference
    assert found.relative
    assert found.low < FAST - 1 < found.high
    assert found.change == pytest.approx(FAST - 1, abs=0.01)
    assert found.p < 0.001
    assert (found.pairs, found.counts) == (0, (4, 4))
    same = result(told, "prefill.j_per_token").difference
    assert same.low < 0 < same.high
    assert same.change == pytest.approx(0, abs=1e-12)


def test_runs_with_keys_are_pairs(groups):
    a, b = (side(name, runs, keys=[(n,) for n in range(4)]) for name, runs in zip("ab", groups, strict=True))
    found = result(compare([a, b]), "decode.j_per_token").difference
    assert found.pairs == 4


def test_single_runs_are_compared_by_their_requests_in_pairs(tmp_path):
    a, b = ran(tmp_path, 0), ran(tmp_path, 4, FAST)
    told = compare([side("a", [a]), side("b", [b])])
    assert told.by == "request"
    found = result(told, "decode.j_per_token").difference
    assert found.pairs == 3
    assert found.low < FAST - 1 < found.high


def test_the_gain_of_one_meter_cancels_and_that_of_two_does_not(tmp_path):
    gain = {"factor": "gain meter.power/main", "kind": "gain", "device": "host", "rail": "main", "sensor": "meter.power",
            "applies": "both", "u": 0.05, "unit": "1"}  # fmt: skip
    a, b = (
        packed_run.write(tmp_path / name, packed_run.story(gap=None), factors=[gain]) for name in ("a", "b")
    )
    one = side("b", [b])
    assert ratio_u(side("a", [a]), one, "decode") == pytest.approx(0.002 * math.sqrt(2 / 3), rel=0.05)
    assert any("One meter measured" in note for note in notes(compare([side("a", [a]), one])))
    b.manifest.rails[0]["source"] = "another data sheet"
    assert ratio_u(side("a", [a]), one, "decode") == pytest.approx(0.05 * math.sqrt(2), rel=0.01)


def test_boundaries_and_estimates_are_told_apart(tmp_path):
    board, wall = ran(tmp_path, 0), ran(tmp_path, 5, boundary="wall")
    told = compare([side("board", [board]), side("wall", [wall])])
    refused = result(told, "decode.j_per_token")
    assert refused.difference is None
    assert refused.why == "measured at different boundaries: board, wall"
    assert result(told, "decode.tokens_per_s").difference is not None
    assert any("not alike" in note for note in notes(told))
    mixed = compare([side("board", [board]), side("wall", [wall])], mixed=True)
    assert result(mixed, "decode.j_per_token").difference is not None
    guess = compare([side("board", [board]), side("guess", [ran(tmp_path, 6, estimated=True)])])
    assert "estimated" in result(guess, "decode.j_per_token").why


def test_what_differs_is_named(tmp_path):
    a, b = ran(tmp_path, 0), ran(tmp_path, 5)
    b.manifest.recipe["collectors"]["meter"]["hz"] = 50
    b.manifest.host["cpu"] = "another"
    rows = {row.key: row.values for row in compare([side("a", [a]), side("b", [b])]).differing}
    assert rows["recipe.collectors.meter.hz"] == ("1000.0", "50")
    assert rows["host.cpu"] == ("AMD EPYC 9V45", "another")
    assert "host.name" not in rows


def test_sides_that_cannot_be_are_refused(tmp_path):
    a = ran(tmp_path, 0)
    with pytest.raises(Inconclusive, match="expected runs to compare, got none"):
        side("none", [])
    with pytest.raises(Inconclusive, match="expected one of the devices host, got 'phone'"):
        side("a", [a], "phone")
    with pytest.raises(ConfigError, match=r"got 'decode\.speed'"):
        compare([side("a", [a]), side("b", [a])], metrics=["decode.speed"])


def test_what_was_not_measured_is_not_compared(tmp_path):
    a, b = ran(tmp_path, 0, powered=False), ran(tmp_path, 5, powered=False)
    told = compare([side("a", [a]), side("b", [b])], metrics=["decode.j_per_token", "decode.tokens_per_s"])
    assert result(told, "decode.j_per_token").difference is None
    assert result(told, "decode.tokens_per_s").difference is not None


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        ("decode.j_per_token <= 0.5", "kept"), ("decode.j_per_token <= 0.01", "broken"), ("decode.j_per_token <= 0.1635", "undecidable"),
        ("decode.j_per_token <= 0.95x", "kept"), ("decode.j_per_token < 0.8x", "broken"), ("decode.j_per_token >= 0.9001x", "undecidable"),
        ("decode.tokens_per_s >= 1", "kept"), ("window.j_per_token <= 1", "undecidable"),
    ],
)  # fmt: skip
def test_budgets_are_judged_by_the_whole_interval(groups, limit, word):
    sides = [side("a", groups[0]), side("b", groups[1])]
    if limit.startswith("window"):
        with pytest.raises(ConfigError, match=r"got 'window\.j_per_token'"):
            compare(sides, budgets=[Budget.parse(limit)])
        return
    (verdict,) = compare(sides, budgets=[Budget.parse(limit)]).verdicts
    assert verdict.word == word


@pytest.mark.parametrize(
    "text", ["", "decode <= 1", "decode.j_per_token == 1", "decode.j_per_token <= much", "decode.speed <= 1"]
)
def test_a_budget_that_is_none_says_what_is(text):
    with pytest.raises(ConfigError, match=r"--budget: expected PHASE\.METRIC <= NUMBER"):
        Budget.parse(text)


def test_a_ratio_needs_another_side(groups):
    with pytest.raises(ConfigError, match="expected another side"):
        compare([side("a", groups[0])], budgets=[Budget.parse("decode.j_per_token <= 1x")])


positive = st.lists(st.floats(0.1, 100), min_size=2, max_size=8)


@given(positive, positive)
@settings(deadline=None)
def test_unpaired_is_welch(a, b):
    found = difference(a, b, paired=False)
    if min(np.std(np.log(a)), np.std(np.log(b))) < 1e-6:
        return
    told = stats.ttest_ind(np.log(b), np.log(a), equal_var=False)
    assert found.p == pytest.approx(told.pvalue, rel=1e-6, abs=1e-12)
    interval = told.confidence_interval(0.95)
    with np.errstate(over="ignore"):
        ends = np.expm1([interval.low, interval.high])
    assert [found.low, found.high] == pytest.approx(ends, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=3, max_size=8))
@settings(deadline=None)
def test_pairs_are_students(pairs):
    a, b = zip(*pairs, strict=True)
    gaps = np.log(b) - np.log(a)
    if np.std(gaps) < 1e-6:
        return
    assert difference(a, b, paired=True).p == pytest.approx(
        stats.ttest_rel(np.log(b), np.log(a)).pvalue, rel=1e-6, abs=1e-12
    )


def test_values_that_may_be_negative_are_subtracted():
    found = difference([-1.0, 1.0, 0.5], [2.0, 3.0, 4.5], paired=False)
    assert not found.relative
    assert found.change == pytest.approx(3.0)


def test_measuring_widens_an_interval_and_unknown_leaves_none():
    a, b = [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]
    narrow, wide, unknown = (difference(a, b, paired=False, u=u) for u in (0.0, 0.2, None))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (unknown.low, unknown.high) == (None, None)
    assert unknown.change == narrow.change


def test_intervals_hold_as_often_as_they_say():
    """2000 times: six values a side of a known ratio, and a measuring error common to all of one side."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(2000):
        meter = rng.normal(0, 0.02)
        a, b = np.exp(rng.normal(0, 0.03, 6)), 1.3 * np.exp(rng.normal(0, 0.03, 6) + meter)
        found = difference(list(a), list(b), paired=False, u=0.02)
        held += found.low <= 0.3 <= found.high
    assert 0.93 <= held / 2000 <= 0.985


def test_one_value_has_measurings_interval():
    assert typical([2.0], 0.01)[1:] == pytest.approx((2 * math.exp(-0.0196), 2 * math.exp(0.0196)), rel=1e-4)
    assert typical([2.0], None)[1:] == (None, None)
    assert difference([2.0], [3.0], paired=False, repeated=False).p is None


def test_the_command_prints_and_exits_by_the_budget(groups, tmp_path, capsys):
    def told(*arguments):
        status = cli(["compare", "--archive", str(tmp_path), *arguments])
        return status, *capsys.readouterr()

    slow, fast = "slow=run < '20261124'", "fast=run >= '20261124'"
    status, out, err = told(slow, fast)
    assert status == 0
    assert "decode.j_per_token" in out
    assert "a repetition is a run" in err
    assert told(slow, fast, "--budget", "decode.j_per_token <= 0.95x")[0] == 0
    assert told(slow, fast, "--budget", "decode.j_per_token <= 0.5x")[0] == 1
    assert told(fast, "--budget", "decode.j_per_token <= 0.1635")[0] == 3
    status, out, _ = told(slow, fast, "--json", "--metric", "decode.tokens_per_s")
    said = json.loads(out)
    assert [one["metric"] for one in said["results"]] == ["decode.tokens_per_s"]
    assert [len(one["runs"]) for one in said["sides"]] == [4, 4]
    status, _, err = told(slow)
    assert status == 2
    assert "expected two sides or more" in err
    status, _, err = told(slow, "none=run = 'x'")
    assert status == 2
    assert "expected runs of which" in err
    status, _, err = told(slow, "bad=nonsense = 1")
    assert status == 2


def test_tables_and_payload_say_the_same(groups):
    told = compare(
        [side("a", groups[0]), side("b", groups[1])], budgets=[Budget.parse("decode.j_per_token <= 1")]
    )
    plain = payload(told)
    rows = [row for title, _, rows in tables(told) if "against" in title for row in rows]
    assert [row[0] for row in rows] == [one["metric"] for one in plain["results"]]
    assert plain["budgets"][0]["verdict"] == "kept"

"""Token events -> tokens: counted, ordered, placed, and never a crash."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.made_run import MS, Made, constant, pick

ENDS = [100.0, 130.0, 160.0, 200.0]


def asked(**changes):
    made = Made(1.0, rails=[constant(4.0, 1.0)])
    made.ask(1, 10.0, ENDS, 210.0, **changes)
    return made


def test_token_0_has_no_time_and_no_joules_and_the_others_cover_what_lies_between():
    rows = asked(slot=20.0).rows("tokens")
    assert [r["index"] for r in rows] == [0, 1, 2, 3]
    first = rows[0]
    assert first["start_ns"] == first["stop_ns"]
    assert (first["joules"], first["quality"], first["coverage"]) == (None, None, None)
    assert [(r["start_ns"], r["stop_ns"]) for r in rows[1:]] == [
        (a["stop_ns"], b["stop_ns"]) for a, b in itertools.pairwise(rows)
    ]
    assert [r["joules"] for r in rows[1:]] == pytest.approx([0.12, 0.12, 0.16])


def test_the_device_s_own_times_are_taken_and_arrivals_kept():
    rows = asked(slot=20.0).rows("tokens")
    # the fastest piece took 3 ms: a one-way clock lies at the fastest arrival
    assert [r["stop_ns"] for r in rows] == [round((t + 3) * MS) for t in ENDS]
    assert [r["arrival_ns"] for r in rows] == [round((t + 3) * MS) for t in ENDS]
    made = asked(slot=20.0)
    for row in made.server:
        row["arrival_ns"] += 5 * MS * (row.get("index") == 2)
    assert made.rows("tokens")[2]["arrival_ns"] == (160 + 3 + 5) * MS


def test_arrival_times_are_called_so():
    derived = asked().derive()
    assert derived["requests"]["times"].to_pylist() == ["arrival"]
    assert derived["tokens"]["stop_ns"].to_pylist() == [t * MS for t in ENDS]
    assert asked(slot=20.0).derive()["requests"]["times"].to_pylist() == ["device"]


def test_tokens_of_one_step_share_it_equally():
    made = Made(1.0, rails=[constant(4.0, 1.0)])
    made.ask(1, 10.0, [100.0, 160.0], 210.0, counts=[1, 3])
    rows = made.rows("tokens")
    assert [(r["step"], r["count"]) for r in rows] == [(0, 1), (1, 3), (1, 3), (1, 3)]
    assert [r["joules"] for r in rows[1:]] == pytest.approx([0.08] * 3)
    assert sum(r["seconds"] for r in rows[1:]) == pytest.approx(0.06)
    assert made.rows("phases", phase="decode")[0]["joules"] == pytest.approx(0.24)


def test_a_first_step_of_two_tokens_costs_the_prefill():
    made = Made(1.0, rails=[constant(4.0, 1.0)])
    made.ask(1, 10.0, [100.0, 160.0], 210.0, counts=[2, 1])
    assert [r["joules"] is None for r in made.rows("tokens")] == [True, True, False]
    assert made.rows("phases", phase="decode")[0]["tokens"] == 1


def test_withheld_tokens_count_and_are_not_visible():
    made = asked()
    made.host = [r | {"visible": False} if r.get("index") == 3 else r for r in made.host]
    derived = made.derive()
    assert derived["tokens"]["visible"].to_pylist() == [True, True, True, False]
    assert derived["requests"]["output_tokens"].to_pylist() == [4]


def test_what_an_index_skips_came_in_that_step_and_makes_it_partial():
    made = asked()
    made.host = [r for r in made.host if r.get("index") != 2]
    derived = made.derive()
    assert derived["requests"]["partial"].to_pylist() == [True]
    assert derived["tokens"]["count"].to_pylist() == [1, 1, 2, 2]
    assert derived["tokens"]["visible"].to_pylist() == [True, True, False, True]


def test_rows_in_any_order_tell_the_same():
    made = asked(slot=20.0)
    wanted = made.derive()
    random.Random(3).shuffle(made.server)
    random.Random(4).shuffle(made.host)
    assert made.derive()["tokens"].equals(wanted["tokens"])


@pytest.mark.parametrize("damage", ["twice", "back in time", "no index", "index of a lunatic"])
def test_contradictions_are_partial_not_a_crash(damage):
    made = asked()
    tokens = [r for r in made.host if r["kind"] == "token"]
    if damage == "twice":
        made.host.append(tokens[1] | {"tick": tokens[1]["tick"] + MS})
    elif damage == "back in time":
        tokens[2]["tick"], tokens[3]["tick"] = tokens[3]["tick"], tokens[2]["tick"]
    elif damage == "no index":
        tokens[2]["index"] = None
    else:
        tokens[2]["index"] = 2**60
    derived = made.derive()
    assert derived["requests"]["partial"].to_pylist() == [True]
    assert pick(derived, "phases", phase="decode")[0]["quality"] == "partial"
    stops = derived["tokens"]["stop_ns"].to_pylist()
    assert stops == sorted(stops)
    assert len(stops) == 4


def test_without_any_index_the_order_counts():
    made = asked()
    made.host = [r | {"index": None} for r in made.host]
    assert made.derive()["tokens"]["index"].to_pylist() == [0, 1, 2, 3]


def test_tokens_that_cannot_be_placed_are_counted_and_missing():
    made = asked(slot=20.0)
    made.readings = []
    derived = made.derive()
    rows = derived["tokens"].to_pylist()
    assert [(r["start_ns"], r["stop_ns"], r["joules"], r["quality"]) for r in rows] == [
        (None, None, None, "missing")
    ] * 4
    assert derived["requests"]["output_tokens"].to_pylist() == [4]
    assert pick(derived, "clocks")[0]["kind"] == "none"


def test_context_and_text():
    made = asked(slot=20.0, prompt_total=11, prompt_cached=1)
    made.server = [r | {"text": f"w{r.get('index')}"} if r["kind"] == "token" else r for r in made.server]
    rows = made.rows("tokens")
    assert [r["context"] for r in rows] == [11, 12, 13, 14]
    assert [r["text"] for r in rows] == ["w0", "w1", "w2", "w3"]


events = st.fixed_dictionaries({
    "tick": st.integers(-(10**10), 2 * 10**10),
    "kind": st.sampled_from([
        "phase_start", "phase_end", "load_start", "load_end", "request_sent", "prefill_start", "prefill_progress", "token",
        "request_end", "request_error", "window_start", "window_end", "mark", "from the future",
    ]),
    "request": st.none() | st.integers(1, 3), "name": st.none() | st.sampled_from(["baseline", "x"]),
    "index": st.none() | st.integers(-2, 9), "count": st.none() | st.integers(-1, 4),
    "prompt_total": st.none() | st.integers(-1, 20), "prompt_cached": st.none() | st.integers(0, 3),
    "prompt_processed": st.none() | st.integers(0, 20), "arrival_ns": st.none() | st.integers(0, 2 * 10**10),
    "detail": st.none() | st.sampled_from(["{}", "{", "[]", '{"usage": {"prompt_tokens": 4}}', '{"error": "x"}', '{"warmup": true}']),
})  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(events, max_size=14), st.lists(events, max_size=8), st.booleans())
def test_no_events_whatever_crash_it_and_energy_is_conserved(host, server, placed):
    made = Made(10.0, rails=[constant(4.0, 10.0, 100.0)])
    made.host, made.server = host, [{**r, "epoch": r["request"] or 0} for r in server]
    if placed:
        for epoch in range(4):
            made.read("llama.server", 0, 10**9, 8 * 10**9, epoch, tick_ns=1.0)
    derived = made.derive()
    total = sum(r["joules"] or 0.0 for r in derived["phases"].to_pylist())
    if len(derived["phases"]):
        assert total == pytest.approx(40.0, rel=1e-9)

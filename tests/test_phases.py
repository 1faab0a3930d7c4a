"""Events -> the partition of a device's time."""

import pytest

from tests.made_run import MS, Made, constant, pick


def shape(made, *names):
    rows = made.rows("phases")
    return [
        (r["phase"], r["start_ns"] / MS, r["stop_ns"] / MS) for r in rows if not names or r["phase"] in names
    ]


def test_a_whole_run_is_partitioned():
    made = Made(10.0, rails=[constant(4.0, 10.0)])
    made.phase("baseline", 0, 1000)
    made.event("load_start", 1000)
    made.event("load_end", 2000)
    made.ask(1, 3000, [4000, 4100, 4200], 4300, slot=3100, delay=0.0)
    made.phase("tail", 4300, 4500)
    made.phase("lunch", 5000, 6000)
    made.phase("baseline", 9000, 10_000)
    assert shape(made) == [
        ("baseline", 0, 1000), ("load", 1000, 2000), ("idle", 2000, 3000), ("queue", 3000, 3100), ("prefill", 3100, 4000),
        ("decode", 4000, 4200), ("idle", 4200, 4300), ("tail", 4300, 4500), ("idle", 4500, 5000), ("other", 5000, 6000),
        ("idle", 6000, 9000), ("baseline", 9000, 10_000),
    ]  # fmt: skip
    assert sum(r["joules"] for r in made.rows("phases")) == pytest.approx(40.0)


def test_without_a_server_clock_prefill_runs_from_sending_to_the_first_arrival():
    made = Made(1.0)
    made.ask(1, 100, [300, 330], 340)
    assert shape(made, "queue", "prefill", "decode") == [("prefill", 100, 300), ("decode", 300, 330)]


def test_the_slot_starts_no_earlier_than_the_request_was_sent():
    made = Made(1.0, rails=[constant(1.0, 1.0)])
    made.ask(1, 100, [300, 330], 340, slot=102, delay=9.0)
    derived = made.derive()
    clock = pick(derived, "clocks", clock="llama.server")[0]
    # the fastest arrival puts it at 111 ms; it was sent at 100 ms: 11 ms are open
    assert (clock["offset_ns"] / MS, clock["latency_ns"] / MS) == (111, 11)
    assert pick(derived, "phases", phase="queue")[0]["stop_ns"] == 111 * MS


def test_overlapping_requests_share_and_waiting_gets_nothing():
    made = Made(10.0, rails=[constant(6.0, 10.0)])
    made.ask(1, 1000, [2000, 4000], 4000)
    made.ask(2, 1500, [3000, 5000], 5000, slot=2500, delay=0.0)
    derived = made.derive()
    one, two = (pick(derived, "phases", request=n) for n in (1, 2))
    assert [r["phase"] for r in two] == ["queue", "prefill", "decode"]
    queue, prefill, decode = two
    assert (queue["joules"], queue["window_joules"]) == (0.0, pytest.approx(6.0))
    assert (prefill["joules"], decode["joules"]) == (pytest.approx(1.5), pytest.approx(3.0 + 6.0))
    assert [r["joules"] for r in one] == [pytest.approx(6.0), pytest.approx(0.5 * 6 + 1.5 * 3)]
    assert "shared" in decode["flags"]
    assert "shared" not in one[0]["flags"]
    # seconds are shared as joules are: their quotient is the power of the device while charged
    assert [r["joules"] / r["seconds"] for r in (*one, prefill, decode)] == pytest.approx([6.0] * 4)
    assert sum(r["joules"] for r in pick(derived, "phases")) == pytest.approx(60.0)


def test_a_wait_while_nothing_else_happens_is_the_queue_s():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.ask(1, 100, [300, 330], 340, slot=200, delay=0.0)
    assert made.rows("phases", phase="queue")[0]["joules"] == pytest.approx(0.5)


def test_a_named_phase_gets_what_its_requests_leave():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.phase("bench", 0, 1000)
    made.ask(1, 100, [300, 400], 400)
    row = made.rows("phases", phase="other")[0]
    assert (row["name"], row["joules"], row["window_joules"]) == (
        "bench",
        pytest.approx(3.5),
        pytest.approx(5.0),
    )
    assert row["mean_w"] == pytest.approx(5.0)


def test_a_window_is_a_request_without_tokens():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.event("window_start", 200, request=4, name="window 1")
    made.event("window_end", 600, request=4, name="window 1", detail='{"model": "ad01"}')
    derived = made.derive()
    assert [(r["phase"], r["name"], r["joules"]) for r in pick(derived, "phases", request=4)] == [
        ("window", "window 1", pytest.approx(2.0))
    ]
    request = pick(derived, "requests")[0]
    assert (request["model"], request["window_joules"], request["partial"]) == (
        "ad01",
        pytest.approx(2.0),
        False,
    )


def test_warming_up_is_a_phase_of_its_own_without_tokens():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.phase("warmup", 0, 500)
    made.ask(1, 100, [300, 400], 400, detail={"warmup": True})
    derived = made.derive()
    rows = pick(derived, "phases", phase="warmup")
    assert [(r["request"], r["joules"]) for r in rows] == [
        (None, pytest.approx(1.0)),
        (1, pytest.approx(1.5)),
    ]
    assert len(derived["tokens"]) == 0
    assert pick(derived, "requests")[0]["warmup"]


@pytest.mark.parametrize(
    ("missing", "phases"),
    [
        ("request_sent", ["decode"]),
        ("request_end", ["prefill", "decode"]),
        ("token", ["window"]),
    ],
)
def test_missing_ends_are_partial(missing, phases):
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.ask(1, 100, [300, 400], 450)
    made.host = [r for r in made.host if r["kind"] != missing]
    derived = made.derive()
    assert [r["phase"] for r in pick(derived, "phases", request=1)] == phases
    assert pick(derived, "requests")[0]["partial"] == (missing != "token")


def test_a_server_that_dies_in_the_prefill():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.ask(1, 100, [], slot=110, delay=0.0)
    made.event("request_error", 600, request=1, detail='{"error": "connection reset"}')
    derived = made.derive()
    assert [(r["phase"], r["quality"]) for r in pick(derived, "phases", request=1)] == [
        ("queue", "partial"), ("prefill", "partial"),
    ]  # fmt: skip
    request = pick(derived, "requests")[0]
    assert (request["error"], request["partial"], request["joules"]) == (
        "connection reset",
        True,
        pytest.approx(2.5),
    )


def test_a_phase_without_its_end_runs_to_the_run_s_and_is_partial():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.phase("baseline", 500, None)
    assert [(r["phase"], r["stop_ns"] / MS, r["quality"]) for r in made.rows("phases")] == [
        ("idle", 500, "measured"), ("baseline", 1000, "partial"),
    ]  # fmt: skip


def test_the_engine_s_phases_hold_for_every_device_and_a_collector_s_for_its_own():
    made = Made(
        1.0,
        rails=[constant(5.0, 1.0), constant(3.0, 1.0, device_of="phone", sensor_of="fuel.power")],
        device="phone",
    )
    made.phase("baseline", 0, 200)
    made.phase("cooling", 300, 400, engine=False)
    rows = [(r["device"], r["phase"]) for r in made.rows("phases") if r["phase"] != "idle"]
    assert rows == [("host", "baseline"), ("phone", "baseline"), ("phone", "other")]


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize(
    "name", ["tokenize", "reset", "unload", "sleep", "decode", "idle", "request", "", None]
)
def test_a_phase_that_a_runtime_names_and_we_do_not_is_other_by_its_name(name, engine):
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.phase(name, 200, 600, engine=engine)
    derived = made.derive()
    assert [(r["phase"], r["name"], r["joules"]) for r in pick(derived, "phases")] == [
        ("idle", None, pytest.approx(1.0)), ("other", name, pytest.approx(2.0)), ("idle", None, pytest.approx(2.0)),
    ]  # fmt: skip


def test_what_reaches_beyond_the_run_is_cut_and_partial():
    made = Made(1.0, rails=[constant(5.0, 1.0)])
    made.phase("tail", 800, 1300)
    row = made.rows("phases", phase="tail")[0]
    assert (row["stop_ns"], row["joules"], row["quality"]) == (1000 * MS, pytest.approx(1.0), "partial")


def test_rates_of_a_request():
    made = Made(2.0, rails=[constant(5.0, 2.0)])
    made.ask(1, 100, [600, 700, 900], 950, slot=200, delay=0.0, prompt_total=50, prompt_cached=10)
    row = made.rows("requests")[0]
    assert (row["prompt_tokens"], row["cached_tokens"], row["processed_tokens"], row["output_tokens"]) == (
        50,
        10,
        40,
        3,
    )
    assert (row["prefill_tokens_per_s"], row["decode_tokens_per_s"]) == (
        pytest.approx(100),
        pytest.approx(2 / 0.3),
    )
    assert (row["itl_p50_s"], row["itl_p95_s"]) == (pytest.approx(0.15), pytest.approx(0.195))
    assert (row["ttft_s"], row["finish"], row["name"]) == (pytest.approx(0.5), "stop", "prompt-1")
    phases = {r["phase"]: r for r in made.rows("phases", request=1)}
    assert phases["prefill"]["joules_per_token"] == pytest.approx(0.4 * 5 / 40)
    assert phases["decode"]["joules_per_token"] == pytest.approx(0.3 * 5 / 2)

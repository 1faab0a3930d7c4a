"""A script that knows nothing of Trio is recorded: its phases, requests, tokens, and what it failed with."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest
import trio

import melt_stream
from melt_stream.clock import monotonic
from melt_stream.errors import ConfigError, DeviceError, MeltError
from melt_stream.hand import Rows
from melt_stream.outlet import Outlet
from melt_stream.poller import Poller
from melt_stream.rail import Rail
from melt_stream.run import Run
from melt_stream.stream import Stream
from melt_stream.units import W


@dataclass
class Meter(Poller):
    stream = Stream("power", watts=W)
    rail = Rail("board", "board", "gauge")

    def read(self) -> Rows:
        return {"watts": 2.0}


@dataclass
class Broken:
    async def collect(self, _: Outlet) -> None:
        raise DeviceError("burnt")


def said(rec: melt_stream.harness.recording.Recording) -> list[dict[str, object]]:
    assert rec.run is not None
    return rec.run.table("script.events").to_pylist()


def test_a_script_is_recorded_and_packed(tmp_path):
    with melt_stream.recording(tmp_path, {"meter": Meter(hz=100)}, name="first", tags=["a"]) as rec:
        before = monotonic()
        with rec.phase("warm-up"):
            rec.mark("hot")
        with rec.request("prompt 1", prompt_tokens=3) as answer:
            for word in ("Hello", " world"):
                answer.token(word)
        after = monotonic()
    assert rec.run is not None
    assert (rec.run.state, rec.ending.reason) == ("packed", "workloads ended")
    events = said(rec)
    assert [
        (event["kind"], event["name"], event["request"], event["index"], event["text"]) for event in events
    ] == [
        ("phase_start", "warm-up", None, None, None),
        ("mark", "hot", None, None, None),
        ("phase_end", "warm-up", None, None, None),
        ("request_sent", "prompt 1", 1, None, None),
        ("prefill_start", None, 1, None, None),
        ("token", None, 1, 0, "Hello"),
        ("token", None, 1, 1, " world"),
        ("request_end", "prompt 1", 1, None, None),
    ]
    assert all(before <= event["tick"] <= after for event in events)
    assert len(rec.run.table("meter.power")) > 0


def test_any_thread_may_speak_and_times_never_decrease(tmp_path):
    def speak(number: int) -> None:
        for _ in range(50):
            rec.mark(f"thread {number}")

    with melt_stream.recording(tmp_path) as rec, ThreadPoolExecutor(4) as pool:
        list(pool.map(speak, range(4)))
    events = said(rec)
    assert len(events) == 200
    assert all(one["tick"] <= other["tick"] for one, other in pairwise(events))


def test_loose_tokens_belong_to_a_request_of_their_own(tmp_path):
    with melt_stream.recording(tmp_path) as rec:
        rec.token("a")
        rec.token(count=2)
    kinds = [(event["kind"], event["request"], event["index"], event["count"]) for event in said(rec)]
    assert kinds == [
        ("request_sent", 1, None, None), ("prefill_start", 1, None, None),
        ("token", 1, 0, 1), ("token", 1, 2, 2), ("request_end", 1, None, None),
    ]  # fmt: skip


def test_what_the_script_raises_is_raised_and_the_run_is_kept(tmp_path):
    recording = melt_stream.recording(tmp_path, {"meter": Meter()})
    with pytest.raises(ZeroDivisionError), recording as rec, rec.request("impossible"):
        1 / 0  # noqa: B018
    assert rec.run.state == "packed"
    last = said(rec)[-1]
    assert last["kind"] == "request_error"
    assert json.loads(last["detail"]) == {"error": "ZeroDivisionError: division by zero"}


def test_the_body_does_not_run_where_recording_cannot_begin(tmp_path):
    said = "recording failed: burnt; what was recorded is kept in"
    with pytest.raises(MeltError, match=said), melt_stream.recording(tmp_path, {"meter": Broken()}):
        pytest.fail("the body ran")
    assert not [thread for thread in threading.enumerate() if "melt_stream" in thread.name]


def test_a_failure_while_the_body_runs_is_raised_after_it(tmp_path):
    fail = threading.Event()

    @dataclass
    class Later:
        async def collect(self, out: Outlet) -> None:
            out.ready()
            await trio.to_thread.run_sync(fail.wait)
            raise DeviceError("burnt")

    done = []
    recording = melt_stream.recording(tmp_path, {"meter": Later()})
    with pytest.raises(MeltError, match="burnt"), recording as rec:  # noqa: PT012 - the body must go on
        fail.set()
        rec.mark("still here")
        done.append("the body")
    assert done == ["the body"]
    assert isinstance(rec.run, Run)


def test_collectors_may_be_named_and_configured_as_in_a_recipe(tmp_path):
    wrong = melt_stream.recording(tmp_path, {"cpu": {"hzz": 5}})
    with pytest.raises(ConfigError, match="did you mean 'hz'"), wrong:
        pytest.fail("the body ran")
    with melt_stream.recording(tmp_path, {"host_cpu": {"kind": "cpu", "hz": 5}}) as rec:
        rec.mark()
    assert len(rec.run.table("host_cpu.cpu")) > 0


def test_baselines_stand_around_the_body(tmp_path):
    with melt_stream.recording(tmp_path, {"meter": Meter()}, baseline=0.1) as rec:
        rec.mark("body")
    (mark,) = said(rec)
    ticks = rec.run.table("run.events")["tick"].to_pylist()
    assert len(ticks) == 4
    assert ticks[1] < mark["tick"] < ticks[2]

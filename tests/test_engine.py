"""A run from start to end: what is recorded, what is retried, and that nothing is lost however it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from melt_stream.clock import Clock, Reading, monotonic
from melt_stream.engine import Ending, record
from melt_stream.errors import ConfigError, DeviceError, MeltError, Transient
from melt_stream.outlet import Outlet
from melt_stream.sink import Batch
from melt_stream.stream import Stream
from melt_stream.testing import Keep, trio_now
from melt_stream.units import W

METER = Stream("meter", watts=W)
COUNTED = Stream("counted", clock=Clock("device"), watts=W)
run = partial(record, now=trio_now)


@dataclass
class Scripted:
    """Plays back (delay, watts) pairs, once; an exception is raised when it is met."""

    script: list[tuple[float, Any]]
    optional: bool = False

    async def collect(self, out: Outlet) -> None:
        while self.script:
            delay, watts = self.script.pop(0)
            await trio.sleep(delay)
            if isinstance(watts, BaseException):
                raise watts
            out.row(METER, watts=watts)


@dataclass
class Steady:
    """A row a second for ever."""

    optional: bool = False

    async def collect(self, out: Outlet) -> None:
        while True:
            out.row(METER, watts=1.0)
            await trio.sleep(1)


@dataclass
class Does:
    """A workload or a sink's stand-in made of a function."""

    work: Callable[[Outlet], Any]
    exit_status: int | None = None

    async def collect(self, out: Outlet) -> None:
        await self.work(out)


class Failing:
    """A sink that fails at its first batch."""

    def __init__(self, policy: str) -> None:
        self.policy = policy

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for _ in batches:
            raise OSError("disk full")


class Slow(Keep):
    """Keeps what it gets, slowly."""

    def __init__(self, seconds: float, policy: str = "") -> None:
        super().__init__()
        self.policy, self.seconds = policy, seconds

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for some in batches:
            await trio.sleep(self.seconds)
            self.add(some)


class Hanging:
    """Never takes anything."""

    policy = "wait"

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:  # noqa: ARG002 - that is its fault
        await trio.sleep_forever()


async def test_rows_reach_every_sink_in_order(autojump_clock):
    one, two = Keep(), Keep()
    ending = await run({"meter": Scripted([(1, 10.0), (1, 20.0)])}, [one, two])
    assert ending == Ending("collectors ended")
    assert one.rows("meter.meter") == two.rows("meter.meter")
    assert [row["watts"] for row in one.rows("meter.meter")] == [10.0, 20.0]
    assert np.diff(one.column("meter.meter", "tick")).tolist() == [1_000_000_000]


async def test_two_of_a_kind_do_not_mix(autojump_clock):
    keep = Keep()
    await run({"a": Scripted([(0, 1.0)]), "b": Scripted([(0, 2.0)])}, [keep], devices={"b": "phone"})
    assert (keep.column("a.meter", "watts"), keep.column("b.meter", "watts")) == ([1.0], [2.0])
    assert keep.schema("b.meter").metadata[b"device"] == b"phone"


async def test_a_time_limit_loses_no_row(autojump_clock):
    keep = Keep()
    ending = await run({"meter": Steady()}, [keep], seconds=9.5, flush_every=60)
    assert ending == Ending("time limit")
    assert len(keep.rows("meter.meter")) == 10


async def test_cancelling_from_outside_loses_nothing_and_is_passed_on(autojump_clock):
    keep = Slow(5)
    with trio.move_on_after(2.5) as scope:
        await run({"meter": Steady()}, [keep])
    assert scope.cancelled_caught
    assert len(keep.rows("meter.meter")) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_run_in_order(number, autojump_clock):
    async def kill(out: Outlet) -> None:
        await trio.sleep(2.5)
        os.kill(os.getpid(), number)
        await trio.sleep_forever()

    keep = Slow(1)
    ending = await run({"meter": Steady()}, [keep], {"kill": Does(kill)})
    assert ending == Ending(f"signal {number.name}", signal=number)
    assert len(keep.rows("meter.meter")) == 3


async def test_a_second_signal_abandons_a_sink_that_hangs_and_only_that(autojump_clock):
    async def kill(out: Outlet) -> None:
        await trio.sleep(2.5)
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await trio.sleep_forever()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    keep = Keep()
    with trio.fail_after(100):
        ending = await run({"meter": Steady()}, [Hanging(), keep], {"kill": Does(kill)})
    assert ending.signal == signal.SIGTERM
    assert "abandoned" in str(ending.error)
    assert len(keep.rows("meter.meter")) == 3


async def test_a_transient_failure_is_retried_and_leaves_a_gap(autojump_clock):
    keep = Keep()
    await run({"meter": Scripted([(1, 1.0), (1, Transient("no answer")), (1, 2.0)])}, [keep])
    assert keep.column("meter.meter", "watts") == [1.0, 2.0]
    first, second = keep.column("meter.meter", "tick")
    (gap,) = keep.rows("run.gaps")
    assert (gap["instance_of"], gap["stream"], gap["start"], gap["stop"]) == ("meter", "meter", first, second)
    assert gap["reason"] == "Transient: no answer"


async def test_a_gap_that_never_closes_ends_with_the_run(autojump_clock):
    keep = Keep()
    await run({"meter": Scripted([(1, 1.0), (0, Transient("gone")), (1e9, 0)])}, [keep], seconds=10)
    (gap,) = keep.rows("run.gaps")
    assert gap["stop"] - gap["start"] == 10_000_000_000


async def test_a_nursery_of_transients_is_transient(autojump_clock):
    async def fail() -> None:
        raise Transient("one of two")

    tries = []

    async def collect(out: Outlet) -> None:
        tries.append(trio.current_time())
        if len(tries) < 3:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(fail)
        out.row(METER, watts=1.0)

    ending = await run({"meter": Does(collect)}, [])
    assert ending.error is None
    assert len(tries) == 3


async def test_one_fatal_leaf_makes_a_group_fatal(autojump_clock):
    async def collect(out: Outlet) -> None:
        raise ExceptionGroup("both", [Transient("ask again"), DeviceError("broken for good")])

    ending = await run({"meter": Does(collect)}, [])
    assert ending.reason == "collector 'meter' failed: broken for good"
    assert isinstance(ending.error, DeviceError)


async def test_pauses_grow_and_start_again_after_a_good_minute(autojump_clock):
    started = []

    async def collect(out: Outlet) -> None:
        started.append(trio.current_time())
        if len(started) in (1, 2, 3):
            raise Transient("no")
        if len(started) == 4:
            await trio.sleep(61)
            raise Transient("no")

    await run({"meter": Does(collect)}, [], start_timeout=1000)
    pauses = np.diff(started) - np.array([0, 0, 0, 61])
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.1])


async def test_a_restarted_collectors_own_clock_gets_a_new_epoch(autojump_clock):
    async def collect(out: Outlet) -> None:
        out.clock_reading(Reading(COUNTED.clock, 0, not_before=0, not_after=1))
        for tick in range(3):
            out.row(COUNTED, tick=tick, watts=1.0)
        await trio.sleep(1)
        raise Transient("unplugged")

    keep = Keep()
    await run({"meter": Does(collect)}, [keep], seconds=2.5)
    epochs, ticks = keep.column("meter.counted", "epoch"), keep.column("meter.counted", "tick")
    assert epochs == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert sorted(zip(epochs, ticks, strict=True)) == list(zip(epochs, ticks, strict=True))
    assert keep.column("run.readings", "epoch_of") == [0, 1, 2]
    assert keep.column("run.readings", "clock_of") == ["meter.device"] * 3


async def test_a_restarted_collectors_host_ticks_go_on(autojump_clock):
    keep = Keep()
    script = [(1, 1.0), (1, Transient("no")), (1, 2.0), (1, Transient("no")), (1, 3.0)]
    await run({"meter": Scripted(script)}, [keep])
    assert (np.diff(keep.column("meter.meter", "tick")) > 0).all()


@pytest.mark.parametrize("values", [{"wats": 1.0}, {"watts": "1"}, {"watts": True}, {"watts": 10**400}])
async def test_a_wrong_name_or_value_fails_in_the_collector(values, autojump_clock):
    caught: list[TypeError] = []

    async def collect(out: Outlet) -> None:
        out.row(METER, watts=1.0)
        try:
            out.row(METER, **values)
        except TypeError as exc:
            caught.append(exc)
            raise

    keep = Keep()
    ending = await run({"meter": Does(collect)}, [keep])
    assert ending.error is caught[0]
    assert "meter.meter" in str(ending.error)
    assert keep.column("meter.meter", "watts") == [1.0]


async def test_a_failed_collector_ends_the_run_after_its_last_row(autojump_clock):
    keep = Keep()
    ending = await run({"bad": Scripted([(1, 1.0), (0.5, ValueError("boom"))]), "good": Steady()}, [keep])
    assert (ending.reason, str(ending.error)) == ("collector 'bad' failed: boom", "boom")
    assert (len(keep.rows("bad.meter")), len(keep.rows("good.meter"))) == (1, 2)


async def test_the_run_goes_on_without_an_optional_collector(autojump_clock):
    keep = Keep()
    bad = Scripted([(1, 1.0), (1, ValueError("boom"))], optional=True)
    ending = await run({"bad": bad, "good": Steady()}, [keep], seconds=10)
    assert ending == Ending("time limit")
    assert [fact["value"] for fact in keep.rows("run.facts")] == ['"ValueError: boom"']
    assert len(keep.rows("run.gaps")) == 1


async def test_a_slow_sink_delays_neither_sampling_nor_a_fast_one(autojump_clock):
    fast_at: list[float] = []

    class Fast(Keep):
        async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
            async for some in batches:
                fast_at.append(trio.current_time())
                self.add(some)

    fast, slow = Fast(), Slow(30, policy="wait")
    await run({"meter": Scripted([(1, float(i)) for i in range(20)])}, [slow, fast], flush_every=0.5)
    assert max(fast_at) < 21
    assert fast.rows("meter.meter") == slow.rows("meter.meter")
    assert set(np.diff(slow.column("meter.meter", "tick"))) == {1_000_000_000}


async def test_a_sink_that_need_not_have_all_loses_the_oldest_and_that_is_written_down(autojump_clock):
    async def collect(out: Outlet) -> None:
        for start in range(0, 40_000_000, 1_000_000):
            out.rows(METER, tick=np.arange(start, start + 1_000_000), watts=np.zeros(1_000_000))
            await trio.sleep(1)

    class Count:
        def __init__(self, seconds: float, policy: str) -> None:
            self.rows, self.seconds, self.policy, self.facts, self.last = 0, seconds, policy, [], 0

        async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
            async for some in batches:
                await trio.sleep(self.seconds)
                for source, data in some:
                    if source.key == "meter.meter":
                        self.rows, self.last = self.rows + data.num_rows, data["tick"][-1].as_py()
                    if source.key == "run.facts":
                        self.facts += data.to_pylist()

    slow, all_of_it = Count(1000, ""), Count(0, "wait")
    await run({"meter": Does(collect)}, [slow, all_of_it])
    assert all_of_it.rows == 40_000_000
    assert slow.rows < 40_000_000
    assert slow.last == 39_999_999
    (fact,) = all_of_it.facts
    assert fact["name"] == "sink_dropped_rows"


async def test_a_failing_sink_costs_the_others_nothing_and_is_told_at_the_end(autojump_clock):
    keep = Keep()
    ending = await run({"meter": Steady()}, [Failing(""), keep], seconds=9.5)
    assert (ending.reason, str(ending.error)) == ("time limit", "disk full")
    assert len(keep.rows("meter.meter")) == 10


async def test_a_failing_journal_ends_the_run_in_order(autojump_clock):
    keep = Keep()
    ending = await run({"meter": Steady()}, [Failing("wait"), keep], seconds=9.5)
    assert ending.reason == "sink Failing failed: disk full"
    assert isinstance(ending.error, OSError)
    assert len(keep.rows("meter.meter")) == 1


async def test_a_journal_that_cannot_begin_ends_the_run_before_it_has(autojump_clock):
    class Broken(Keep):
        async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:  # noqa: ARG002 - it fails before
            raise OSError("read-only file system")

    async def watch(out: Outlet) -> None:
        out.row(METER, watts=1.0)
        await trio.sleep(1)
        pytest.fail("it went on")

    ending = await run({"meter": Does(watch)}, [Broken()], flush_every=0.01)
    assert ending.reason == "sink Broken failed: read-only file system"


async def test_a_journal_that_returns_early_is_a_failure(autojump_clock):
    class Early:
        policy = "wait"

        async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
            await anext(aiter(batches))

    ending = await run({"meter": Steady()}, [Early()], seconds=9.5)
    assert isinstance(ending.error, MeltError)


@dataclass
class Full:
    """A journal that asks for the end in time, and says why when it comes."""

    got: Keep = field(default_factory=Keep)
    ending: trio.Event = field(default_factory=trio.Event)
    policy = "wait"

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for some in batches:
            self.got.add(some)
            if len(self.got.rows("meter.meter")) >= 3:
                self.ending.set()
        raise MeltError("the disk will soon be full")


async def test_a_sink_that_asks_for_the_end_gets_every_row_until_then(autojump_clock):
    full, keep = Full(), Keep()
    ending = await run({"meter": Steady()}, [full, keep], seconds=60)
    assert (ending.reason, str(ending.error)) == (
        "sink Full failed: the disk will soon be full", "the disk will soon be full",
    )  # fmt: skip
    assert full.got.rows("meter.meter") == keep.rows("meter.meter")
    assert len(keep.rows("meter.meter")) == 3


async def test_a_row_is_with_the_sinks_within_a_quarter_of_a_second(autojump_clock):
    ages: list[int] = []

    class Aged(Keep):
        async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
            async for some in batches:
                ages.extend(trio_now() - data["tick"][0].as_py() for _, data in some)

    await run({"meter": Scripted([(0.0371, float(n)) for n in range(200)])}, [Aged()])
    assert len(ages) > 25
    assert max(ages) <= 250_000_000


async def test_workloads_run_one_after_the_other_between_two_baselines(autojump_clock):
    at: list[tuple[str, float]] = []

    async def work(name: str, out: Outlet) -> None:
        at.append((name, trio.current_time()))
        await trio.sleep(2)

    late = Scripted([(3, 1.0), (1e9, 1.0)])
    keep = Keep()
    workloads = {"one": Does(partial(work, "one")), "two": Does(partial(work, "two"), exit_status=7)}
    ending = await run({"meter": late}, [keep], workloads, baseline=5)
    assert ending == Ending("workloads ended", exit_status=7)
    assert at == [("one", 8.0), ("two", 10.0)]
    seen = [(e["kind"], e["name"], e["tick"] / 1e9) for e in keep.rows("run.events")]
    assert seen == [
        ("phase_start", "baseline", 3.0), ("phase_end", "baseline", 8.0),
        ("phase_start", "baseline", 12.0), ("phase_end", "baseline", 17.0),
    ]  # fmt: skip


async def test_a_failed_workload_ends_the_run_and_the_next_never_starts(autojump_clock):
    started: list[str] = []

    async def fail(out: Outlet) -> None:
        raise Transient("workloads are not asked again")

    async def never(out: Outlet) -> None:
        started.append("never")

    ending = await run({"meter": Steady()}, [], {"one": Does(fail), "two": Does(never)})
    assert ending.reason == "workload 'one' failed: workloads are not asked again"
    assert started == []


async def test_who_is_not_ready_is_named_with_what_was_wrong(autojump_clock):
    async def mute(out: Outlet) -> None:
        await trio.sleep_forever()

    async def broken(out: Outlet) -> None:
        raise Transient("no such port")

    collectors = {"good": Steady(), "mute": Does(mute), "broken": Does(broken)}
    ending = await run(collectors, [], {"work": Steady()}, start_timeout=5)
    assert isinstance(ending.error, DeviceError)
    assert trio.current_time() == pytest.approx(5)
    assert ending.reason == (
        "expected a first row of every collector within 5 s, got none of 'mute' (it said nothing); 'broken' (no such port)"
    )


async def test_nobody_waits_for_an_optional_collector(autojump_clock):
    keep = Keep()
    collectors = {"late": Scripted([(1000, 1.0)], optional=True), "meter": Steady()}
    ending = await run(collectors, [keep], {"work": Scripted([(1, 1.0)])}, start_timeout=5)
    assert ending == Ending("workloads ended")


async def test_what_must_be_prepared_is_prepared_in_a_thread_before_the_workloads():
    threads: dict[str, str] = {}

    class Prepared(Keep):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def prepare(self) -> None:
            threads[self.name] = threading.current_thread().name

        async def collect(self, out: Outlet) -> None:
            assert {"collector", "workload", "sink"} & set(threads) >= {self.name, "sink"}
            out.row(METER, watts=1.0)

    ending = await record(
        {"meter": Prepared("collector")}, [Prepared("sink")], {"work": Prepared("workload")}
    )
    assert ending == Ending("workloads ended")
    assert threads.keys() == {"collector", "workload", "sink"}
    assert threading.main_thread().name not in threads.values()


async def test_the_hosts_clocks_are_read_in_bursts_and_every_second():
    keep = Keep()
    await record({"meter": Steady()}, [keep], seconds=1.2)
    for clock in ("host.realtime", "host.boottime", "host.monotonic_raw"):
        rows = [row for row in keep.rows("run.readings") if row["clock_of"] == clock]
        assert 17 <= len(rows) <= 18
        assert all(row["not_before"] <= row["not_after"] for row in rows)
    assert keep.rows("run.readings")[0]["not_before"] < monotonic()


async def test_rows_that_find_no_room_are_a_gap_and_replays_wait(autojump_clock):
    async def flood(out: Outlet) -> None:
        for _ in range(10):
            out.row(METER, watts=1.0)

    async def replay(out: Outlet) -> None:
        for start in range(0, 100, 2):
            await out.room()
            out.rows(METER, tick=np.arange(start, start + 2), watts=np.zeros(2))

    keep = Keep()
    await run({"replay": Does(replay)}, [keep], limit_rows=4)
    assert keep.column("replay.meter", "tick") == list(range(100))
    assert not keep.rows("run.gaps")
    keep = Keep()
    await run({"flood": Does(flood)}, [keep], limit_rows=4)
    (gap,) = keep.rows("run.gaps")
    assert (gap["lost_rows"], len(keep.rows("flood.meter"))) == (6, 4)


@pytest.mark.parametrize("name", ["run", "Meter", "a.b", ""])
async def test_bad_names_are_refused_before_anything_starts(name, autojump_clock):
    never = Scripted([])
    with pytest.raises(ConfigError, match=repr(name)):
        await run({name: never}, [])
    with pytest.raises(ConfigError, match="meter"):
        await run({"meter": never}, [], {"meter": never})
    with pytest.raises(ConfigError, match="nobody"):
        await run({"meter": never}, [], devices={"nobody": "phone"})


async def test_a_run_in_another_thread_takes_no_signals():
    keep = Keep()
    ending = await trio.to_thread.run_sync(
        lambda: trio.run(partial(record, {"meter": Scripted([(0, 1.0)])}, [keep]))
    )
    assert ending == Ending("collectors ended")
    assert keep.column("meter.meter", "watts") == [1.0]


@dataclass
class Cleaning:
    """Fails while it is being cancelled."""

    seen: list[str] = field(default_factory=list)

    async def collect(self, out: Outlet) -> None:
        out.row(METER, watts=1.0)
        try:
            await trio.sleep_forever()
        finally:
            self.seen.append("cleaned")
            raise ValueError("the port would not close")


async def test_a_failure_while_ending_is_told_and_does_not_start_it_again(autojump_clock):
    cleaning = Cleaning()
    ending = await run({"meter": cleaning}, [], seconds=1)
    assert (ending.reason, str(ending.error)) == ("time limit", "the port would not close")
    assert cleaning.seen == ["cleaned"]


async def test_cancelled_before_it_begins_the_sinks_still_see_the_end():
    class Prepared(Keep):
        def prepare(self) -> None:
            pass

    with trio.fail_after(30), trio.CancelScope() as scope:
        scope.cancel()
        await record({}, [Prepared(), Keep()])
    assert scope.cancelled_caught

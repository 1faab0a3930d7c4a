"""Polling: on a grid, in one thread, stamped around the read, abandoned when it hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.clock import Clock
from melt_stream.engine import Ending, record
from melt_stream.errors import DeviceError, Transient
from melt_stream.hand import ClockShown, Hand, Rows, Sample
from melt_stream.outlet import Hub, Outlet
from melt_stream.poller import Grid, Poller
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.testing import Keep, observe, trio_now
from melt_stream.units import W

S = 1_000_000_000


@dataclass
class Meter(Poller):
    """Reads what a script says; an exception in it is raised, a function is called first."""

    script: Iterator[Any] = field(default_factory=lambda: count(1.0))
    stream = Stream("power", watts=W)
    rail = Rail("board", "board", "gauge")

    def read(self) -> Rows:
        value = next(self.script)
        if isinstance(value, Exception):
            raise value
        return value() if callable(value) else {"watts": float(value)}


@dataclass
class Until:
    """A workload that ends when its condition holds for what was kept; asked at each flush."""

    holds: Callable[[], bool]

    async def collect(self, out: Outlet) -> None:
        while not self.holds():
            await out.flushing()


async def really(meter: Poller, enough: Callable[[Keep], bool]) -> tuple[Keep, Ending]:
    """Poll in a thread, on the real clock, until that is enough."""
    keep = Keep()
    with trio.fail_after(30):
        ending = await record(
            {"it": meter}, [keep], {"until": Until(partial(enough, keep))}, flush_every=0.01
        )
    return keep, ending


def test_reads_lie_on_the_grid():
    keep, ending = observe(Meter(hz=10), seconds=0.95)
    assert ending.reason == "time limit"
    assert keep.column("it.power", "tick") == [n * S // 10 for n in range(10)]
    assert keep.column("it.power", "watts") == [float(n + 1) for n in range(10)]
    assert keep.schema("it.power").metadata[b"period_ns"] == b"100000000.0"


def test_the_rail_is_declared_once_before_the_first_row():
    keep, _ = observe(Meter(hz=10), seconds=2)
    (rail,) = keep.rows("run.rails")
    assert (rail["sensor_of"], rail["sample_period_ns"]) == ("it.power", 1e8)
    assert rail["tick"] <= keep.column("it.power", "tick")[0]


@given(
    hz=st.sampled_from([1.0, 7.0, 100.0, 3333.3]),
    took=st.lists(st.integers(0, 5 * S), max_size=20),
    jitter=st.booleans(),
)
def test_a_late_read_costs_slots_and_never_shifts_them(hz, took, jitter):
    grid, now, slots, missed_in_all = Grid(123, hz), 123, [0], 0
    for busy in took:
        now += busy
        due, missed = grid.after(now, jitter=jitter)
        assert -1 <= due - (123 + grid.slot * S / hz) <= S / hz + 1
        missed_in_all += missed
        slots.append(grid.slot)
        now = max(now, due)
    assert all(later > earlier for earlier, later in pairwise(slots))
    assert missed_in_all == slots[-1] - (len(slots) - 1)


def test_reads_that_take_too_long_leave_a_gap_with_the_rows_they_cost():
    def slow() -> Rows:
        trio.lowlevel.current_clock().jump(0.55)
        return {"watts": 0.0}

    keep, _ = observe(Meter(iter([1, 2, slow, *range(99)]), hz=10), seconds=1.5)
    (gap,) = keep.rows("run.gaps")
    ticks = keep.column("it.power", "tick")
    assert (gap["start"], gap["stop"], gap["lost_rows"]) == (ticks[2], ticks[3], 4)
    assert ticks[2] == S // 5 + 275_000_000
    assert keep.column("it.power", "t_u")[2] == 275_000_000


@pytest.mark.parametrize("rail", [Rail("main", "board", "counter"), Rail("main", "board", "mean")])
def test_a_late_read_of_what_goes_on_unseen_is_no_gap(rail: Rail):
    def slow() -> Rows:
        trio.lowlevel.current_clock().jump(0.55)
        return {"watts": 0.0}

    class GoesOn(Meter):
        pass

    GoesOn.rail = rail
    keep, _ = observe(GoesOn(iter([1, 2, slow, *range(99)]), hz=10), seconds=1.5)
    assert not keep.rows("run.gaps")


def test_one_late_read_is_no_gap():
    def slow() -> Rows:
        trio.lowlevel.current_clock().jump(0.25)
        return {"watts": 0.0}

    keep, _ = observe(Meter(iter([1, slow, *range(99)]), hz=10), seconds=1.5)
    assert not keep.rows("run.gaps")


def test_unreadable_ones_are_one_gap_and_polling_goes_on():
    script = [1, Transient("busy"), Transient("busy"), 4, Transient("gone")]
    keep, _ = observe(Meter(iter([*script, *[Transient("gone")] * 50]), hz=10), seconds=1)
    assert keep.column("it.power", "watts") == [1.0, 4.0]
    first, last = keep.rows("run.gaps")
    assert (first["start"], first["stop"], first["lost_rows"]) == (0, 3 * S // 10, 2)
    assert first["reason"] == "unreadable: busy"
    assert (last["start"], last["reason"]) == (3 * S // 10, "unreadable: gone")


def test_after_ten_seconds_of_nothing_the_engine_starts_it_again():
    script = [1.0, *[Transient("gone")] * 103, 2.0]
    keep, ending = observe(Meter(_then(script), hz=10), seconds=20)
    assert ending.error is None
    assert keep.column("it.power", "watts")[:2] == [1.0, 2.0]
    assert any(gap["reason"] == "Transient: gone" for gap in keep.rows("run.gaps"))
    assert (np.diff(keep.column("it.power", "tick")) > 0).all()


def _then(script: list[Any]) -> Iterator[Any]:
    yield from script
    yield from count(3.0)


def test_a_meter_that_never_answers_is_named():
    keep = Keep()

    async def run() -> Ending:
        with trio.fail_after(100):
            return await record(
                {"it": Meter(_then([Transient("no such bus")] * 999))}, [keep], start_timeout=5, now=trio_now
            )

    ending = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert ending.reason.endswith("within 5 s, got none of 'it' (no such bus)")


@pytest.mark.parametrize("wrong", [lambda: {"wats": 1.0}, lambda: {"watts": "1"}])
async def test_a_wrong_row_from_the_thread_ends_the_run(wrong):
    _, ending = await really(Meter(_then([1.0, wrong])), lambda _: False)
    assert isinstance(ending.error, TypeError)
    assert "it.power" in ending.reason


async def test_another_error_in_the_thread_ends_the_run():
    keep, ending = await really(Meter(_then([1.0, DeviceError("burnt")])), lambda _: False)
    assert ending.reason == "collector 'it' failed: burnt"
    assert keep.column("it.power", "watts") == [1.0]


@dataclass
class Late(Meter):
    """Makes its rows later, of what the thread saw."""

    telling: set[int] = field(default_factory=set)

    def look(self) -> tuple[int, float]:
        return threading.get_ident(), next(self.script)

    def tell(self, seen: tuple[int, float]) -> Rows:
        thread, value = seen
        self.telling.add(threading.get_ident())
        assert thread not in self.telling
        if value % 10 == 5:
            raise Transient("no sense in it")
        if value > 40:
            raise DeviceError("this is another meter")
        return {"watts": value}


async def test_rows_are_made_outside_the_thread_in_order_and_an_error_there_ends_the_run_once():
    meter = Late(hz=1000)
    keep, ending = await really(meter, lambda _: False)
    assert isinstance(ending.error, DeviceError)
    assert keep.column("it.power", "watts") == [value for value in range(1, 41) if value % 10 != 5]
    assert [why for why in keep.column("run.gaps", "reason") if "sense" in why] == [
        "unreadable: no sense in it"
    ] * 4
    assert meter.telling == {threading.get_ident()}


async def test_all_reads_happen_in_one_thread_and_are_stamped_around():
    threads: set[int] = set()

    def read() -> Rows:
        threads.add(threading.get_ident())
        return {"watts": 1.0}

    keep, _ = await really(
        Meter((read for _ in count()), hz=500), lambda keep: len(keep.rows("it.power")) >= 20
    )
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    ticks, widths = keep.column("it.power", "tick"), keep.column("it.power", "t_u")
    assert all(width >= 0 for width in widths)
    assert all(a + ua <= b - ub + 2 for (a, ua), (b, ub) in pairwise(zip(ticks, widths, strict=True))), (
        "reads do not overlap"
    )


async def test_gauges_are_read_at_random_moments_of_their_slots_and_others_are_not():
    def phases(keep: Keep) -> np.ndarray:
        ticks = np.array(keep.column("it.power", "tick")[5:])
        return (ticks - keep.column("it.power", "tick")[0]) / 1e7 % 1

    def enough(keep: Keep) -> bool:
        return len(keep.rows("it.power")) >= 45

    spread, _ = await really(Meter(hz=100), enough)
    regular, _ = await really(Meter(hz=100, jitter=False), enough)
    assert np.std(phases(spread)) > 0.15
    assert np.median((phases(regular) + 0.5) % 1 - 0.5) == pytest.approx(0, abs=0.25)


async def test_a_hung_read_hangs_neither_the_run_nor_its_end():
    hung, release = threading.Event(), threading.Event()

    def hang() -> Rows:
        hung.set()
        release.wait(60)
        return {"watts": 666.0}

    def long_enough(keep: Keep) -> bool:
        return (
            hung.is_set()
            and bool(keep.rows("beat.power"))
            and keep.rows("beat.power")[-1]["tick"] > keep.rows("it.power")[-1]["tick"] + S // 10
        )

    keep = Keep()
    try:
        with trio.fail_after(30):
            ending = await record(
                {"it": Meter(_then([1.0, hang]), hz=100), "beat": Meter(hz=100)},
                [keep],
                {"until": Until(lambda: bool(keep.rows("it.power")) and long_enough(keep))},
                flush_every=0.01,
            )
    finally:
        release.set()
    assert ending == Ending("workloads ended")
    assert keep.column("it.power", "watts") == [1.0]
    (gap,) = [gap for gap in keep.rows("run.gaps") if gap["instance_of"] == "it"]
    assert gap["start"] == keep.column("it.power", "tick")[0]
    assert "did not return" in gap["reason"]


def test_rows_of_several_streams_come_with_their_stream():
    other = Stream("other", clock=Clock("device"), celsius=float)

    def both() -> Rows:
        return iter([{"watts": 1.0}, (other, {"tick": 5, "epoch": 1, "celsius": 40.0})])

    keep, _ = observe(Meter((both for _ in count()), hz=10), seconds=0.25)
    assert keep.column("it.power", "watts") == [1.0] * 3
    assert keep.column("it.other", "tick") == [5] * 3


CHIP = Clock("chip", tick_ns=1e6)


@dataclass
class Counting(Poller):
    """A meter that stamps by a clock of its own."""

    script: Iterator[Any] = field(default_factory=count)
    stream = Stream("counts", clock=CHIP, count=int)

    def read(self) -> Rows:
        value = next(self.script)
        if isinstance(value, Exception):
            raise value
        tick, epoch = value if isinstance(value, tuple) else (1000 + value, 0)
        return [
            ClockShown(CHIP, tick, epoch=epoch, age_ns=S // 4, fresh=tick % 2 == 0),
            {"tick": tick, "epoch": epoch, "count": 1},
        ]


def test_a_clock_of_its_own_is_read_by_each_look_at_it():
    keep, ending = observe(Counting(hz=10, jitter=False), seconds=0.45)
    assert ending.error is None
    assert [(row["tick"], row["t_u"]) for row in keep.rows("it.counts")] == [
        (1000 + k, None) for k in range(5)
    ]
    reads = [k * S // 10 for k in range(5)]
    assert [
        (r["clock_of"], r["count"], r["not_before"], r["not_after"]) for r in keep.rows("run.readings") if "host" not in r["clock_of"]
    ] == [
        ("it.chip", 1000, reads[0] - S // 4, reads[0]),
        ("it.chip", 1001, reads[1] - S // 4, reads[1]),
        ("it.chip", 1002, reads[1], reads[2]),  # fresh: not yet there at the read before
        ("it.chip", 1003, reads[3] - S // 4, reads[3]),
        ("it.chip", 1004, reads[3], reads[4]),
    ]  # fmt: skip


@pytest.mark.parametrize(("after", "stop"), [((1500, 0), 1500), ((7, 1), 1001), (None, 1001)])
def test_a_hole_on_a_clock_of_its_own_ends_at_the_next_row_of_that_clock(after, stop):
    script = iter([0, 1, Transient("away"), *([after] if after else [Transient("away")])])
    keep, _ = observe(Counting(hz=10, script=script), seconds=0.35)
    (gap,) = keep.rows("run.gaps")
    assert (gap["clock_of"], gap["start"], gap["stop"], gap["epoch_of"]) == ("it.chip", 1001, stop, 0)


def test_a_clock_that_a_device_read_is_read_against_the_devices():
    hub, keep, phone = Hub(now=lambda: 0), Keep(), Clock("phone.realtime", tick_ns=1000.0)
    hand = Hand(Counting(hz=10), hub.outlet("it"), phone, epoch=3)
    shown = ClockShown(CHIP, 1000, age_ns=2500), {"tick": 1000, "count": 1}
    hand.take(Sample(before=70, after=80, seen=shown, missed=0))
    keep.add(hub.take())
    (reading,) = keep.rows("run.readings")
    assert (reading["not_before"], reading["not_after"]) == (67, 81)  # us of the phone's, each true by a tick
    assert (reading["against"], reading["clock_of"], reading["count"]) == ("phone.realtime", "it.chip", 1000)
    ((key, source),) = [(key, source) for key, source in keep.sources.items() if key.startswith("it.")]
    assert (key, source.clock) == ("it.counts", "it.chip")

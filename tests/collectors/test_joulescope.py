"""The Joulescope adapter: its pure parts with every loss, the whole with a driver that delivers what the real one does.

No instrument was at hand, and the driver has no emulator, so this is the one meter that is tested with a double. Its
deliveries have the keys and types of pyjoulescope_driver 2.2's ``binding.pyx``; its calls are held to the real driver's.
"""

from __future__ import annotations

import inspect
import threading
from contextlib import asynccontextmanager
from itertools import pairwise

import numpy as np
import pyjoulescope_driver
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.clock import monotonic, utc_ns
from melt_stream.collectors import _joulescope_example
from melt_stream.collectors._joulescope import EPOCH_NS, HZ, Block, Change, Gap, Input, Rows, Together, block
from melt_stream.collectors._joulescope_rows import Heard, Writer
from melt_stream.collectors.joulescope import Joulescope
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from tests.collectors.collecting import collecting

PATH, STEP = "u/js220/000123", 200
AMPS = {"i": 1.0, "v": 2.0, "p": 2.0}


def value(first, data, step=STEP, counter=0, utc=0):
    """A delivery, as binding.pyx makes it."""
    return {
        "sample_id": first, "utc": utc, "field_id": 1, "index": 0, "sample_rate": HZ, "decimate_factor": step,
        "time_map": {"offset_time": utc, "offset_counter": counter, "counter_rate": float(HZ)}, "data": data,
    }  # fmt: skip


def ramp(first, count, name):
    """Samples that tell which they are."""
    return ((first // STEP + np.arange(count)) * AMPS[name]).astype(np.float32)


class Driver:
    """A driver whose instrument says what a test tells it to, on a thread of the driver's own."""

    def __init__(self, paths=(PATH,), fails=None) -> None:
        self.paths, self.fails = list(paths), fails or {}
        self.calls, self.listeners = [], {}
        self.streaming = threading.Event()
        self._work, self._wake, self._end = [], threading.Condition(), False
        self._thread = threading.Thread(target=self._run)

    def Driver(self):  # noqa: N802 - the library's name
        self._call("Driver")
        self._end, self._thread = False, threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _call(self, name, *words):
        self.calls.append((name, *words))
        if name in self.fails:
            raise self.fails[name]

    def device_paths(self):
        return self.paths

    def open(self, path, mode=None):
        self._call("open", path, mode)

    def close(self, path):
        self._call("close", path)

    def publish(self, topic, value, timeout=None):  # noqa: ARG002 - the driver's
        self._call("publish", topic, value)
        if topic.endswith("/s/p/ctrl") and value:
            self.streaming.set()

    def subscribe(self, topic, flags, fn):
        assert flags == ["pub"]
        self.listeners[topic] = fn

    def finalize(self):
        self._call("finalize")
        with self._wake:
            self._end = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def say(self, name, data, topic=None):
        """Deliver on the driver's thread."""
        with self._wake:
            self._work.append((topic or f"{PATH}/s/{name}/!data", data))
            self._wake.notify()

    def _run(self):
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._work or self._end)
                if self._end:
                    return
                topic, data = self._work.pop(0)
            self.listeners[topic](topic, data)


@asynccontextmanager
async def measuring(**fields):
    driver = Driver()
    collector = configure(Joulescope, {**fields}, "it")
    collector.library = driver
    async with collecting(collector) as watched:
        await trio.to_thread.run_sync(driver.streaming.wait)
        yield driver, watched


def deliver(driver, first, count, names="ivp"):
    for name in names:
        driver.say(name, value(first, ramp(first, count, name)))


async def test_current_voltage_power_inputs_and_the_clock():
    before = monotonic()
    async with measuring(gpi=[0, 3]) as (driver, watched):
        for k in range(5):
            first = 10**7 + k * 100 * STEP
            utc = ((utc_ns() - EPOCH_NS) << 30) // 10**9
            driver.say("gpi/3", value(first, np.array([255] * 5 + [0] * 5, np.uint8), step=250))
            driver.say("gpi/0", value(first, np.zeros(10, np.uint8), step=250))
            for name in "vpi":
                counter = first if k else 0
                driver.say(name, value(first, ramp(first, 100, name), counter=counter, utc=utc))
        await watched.until(lambda: len(watched.of("main")) == 500)
    after = monotonic()
    rows = watched.table("it.main")
    number = 50_000 + np.arange(500)
    assert np.array_equal(rows["tick"].to_numpy(), number * STEP)
    assert np.array_equal(rows["amps"].to_numpy(), number.astype(np.float32))
    assert np.array_equal(rows["volts"].to_numpy(), 2 * number.astype(np.float32))
    assert watched.gaps("main") == []
    changes = [(row["tick"] - 10**7, row["level"]) for row in watched.of("gpi3")]
    assert changes == [(k * 10_000, k % 2 == 0) for k in range(10)]
    assert watched.of("gpi0") == [{"tick": 10**7, "epoch": 0, "level": False}]
    (rail,) = watched.rows("run.rails")
    assert (rail["boundary"], rail["gain"], rail["sample_period_ns"]) == ("dc_in", None, 100_000)
    readings = [row for row in watched.rows("run.readings") if row["clock_of"] == "it.sample"]
    (cause,) = [row for row in readings if row["kind"] == "cause"]
    assert cause["count"] == 10**7
    assert before <= cause["not_before"] <= after
    maps = [row for row in readings if row["kind"] == "round_trip"]
    assert [row["count"] for row in maps] == [10**7 + k * 100 * STEP for k in range(1, 5)]
    for row in maps:
        assert before - 2_000_000 <= row["not_before"] < row["not_after"] <= after + 2_000_000
        assert row["not_after"] - row["not_before"] == pytest.approx(2_000_000, rel=0.5)
    assert driver.calls[:6] == [
        ("Driver",),
        ("open", PATH, "defaults"),
        ("publish", f"{PATH}/h/fs", 10_000),
        ("publish", f"{PATH}/s/i/range/mode", "auto"),
        ("publish", f"{PATH}/s/i/ctrl", 1),
        ("publish", f"{PATH}/s/v/ctrl", 1),
    ]
    assert driver.calls[-2:] == [("close", PATH), ("finalize",)]
    assert ("publish", f"{PATH}/s/gpi/3/ctrl", 0) in driver.calls


async def test_what_was_dropped_is_a_gap_of_its_true_length():
    async with measuring() as (driver, watched):
        deliver(driver, 0, 100)
        deliver(driver, 140 * STEP, 100)  # 40 of all
        deliver(driver, 240 * STEP, 100, "iv")
        deliver(driver, 340 * STEP, 100)  # 100 of one
        await watched.until(lambda: len(watched.of("main")) == 300)
    rows = watched.table("it.main")
    number = np.r_[0:100, 140:240, 340:440]
    assert np.array_equal(rows["tick"].to_numpy(), number * STEP)
    assert np.array_equal(rows["watts"].to_numpy(), 2 * number.astype(np.float32))
    assert [(gap["start"], gap["stop"], gap["lost_rows"]) for gap in watched.gaps("main")] == [
        (99 * STEP, 140 * STEP, 40),
        (239 * STEP, 340 * STEP, 100),
    ]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda driver: driver.say("", PATH, "@/!remove"), "got word that it was unplugged"),
        (lambda _: None, "expected samples of i, v and p within 1 s, got none"),
        (lambda driver: deliver(driver, 0, 10), "expected sample id 2010000 or more, got 0"),
    ],
)
async def test_what_breaks_off_is_a_new_epoch(harm, said):
    async with measuring() as (driver, watched):
        deliver(driver, HZ, 50)
        await watched.until(lambda: len(watched.of("main")) == 50)
        driver.say("", "u/js220/another", "@/!remove")  # no business of ours
        driver.streaming.clear()
        harm(driver)
        await trio.to_thread.run_sync(driver.streaming.wait)
        deliver(driver, 0, 20)
        await watched.until(lambda: len(watched.of("main")) == 70)
    (gap,) = watched.gaps("main")
    assert said in gap["reason"]
    assert [row["epoch"] for row in watched.of("main")] == [0] * 50 + [1] * 20
    assert driver.calls.count(("finalize",)) == 2


async def test_two_signals_of_three_are_no_power():
    class Hearing:
        heard = 0

        async def next(self):
            await trio.lowlevel.checkpoint()
            self.heard += 1
            first = self.heard * 100 * STEP
            return Heard(f"{PATH}/s/i/!data", value(first, ramp(first, 100, "i")), self.heard * 300_000_000)

    hearing, out = Hearing(), Hub(now=lambda: 0).outlet("it")
    writer = Writer(out, PATH, Joulescope().main, STEP, [], 0)
    with pytest.raises(Transient, match="expected samples of i, v and p within 1 s"):
        await writer.follow(hearing)
    assert hearing.heard == 4


@pytest.mark.parametrize(
    ("driver", "fields", "kind", "said"),
    [
        ({"paths": ()}, {}, Transient, "expected one Joulescope on USB, got none"),
        ({"paths": (PATH, "u/js110/7")}, {}, DeviceError, "expected one Joulescope on USB, got u/js220/000123, u/js110/7"),
        ({}, {"device": "9"}, Transient, "expected Joulescope '9' on USB, got u/js220/000123"),
        ({"fails": {"open": RuntimeError("jsdrv_open failed 17 IN_USE")}}, {}, DeviceError, "17 IN_USE; does another program"),
        ({"fails": {"open": TimeoutError("jsdrv_open timed out")}}, {}, Transient, "jsdrv_open timed out; is it plugged in"),
        ({"fails": {"Driver": RuntimeError("no libusb")}}, {}, DeviceError, "expected its driver to begin, got no libusb"),
    ],
)  # fmt: skip
async def test_what_the_driver_refuses_has_a_name(driver, fields, kind, said):
    double = Driver(**driver)
    try:
        with pytest.raises(kind, match="expected") as refused:
            await Joulescope(library=double, **fields).collect(Hub().outlet("it"))
    finally:
        double.finalize()
    assert said in str(refused.value)
    assert type(refused.value) is kind


async def test_one_of_several_is_chosen_by_its_number():
    double = Driver(paths=(PATH, "u/js110/7"))
    async with collecting(Joulescope(device="7", library=double)):
        await trio.to_thread.run_sync(double.streaming.wait)
    assert ("open", "u/js110/7", "defaults") in double.calls
    assert ("publish", "u/js110/7/s/i/range/select", "auto") in double.calls


def test_doctor_lists_what_the_driver_finds():
    assert Joulescope(library=Driver()).check().what == PATH
    assert "no Joulescope on USB" in Joulescope(library=Driver(paths=())).check().what
    missing = Joulescope(library="no_such_module").check()
    assert (missing.ok, missing.cure) == (False, "pip install 'melt-stream[joulescope]'")


def test_the_real_driver_begins_here_and_finds_nothing():
    health = Joulescope().check()
    assert health.ok == ("js" in health.what and "/" in health.what)


@pytest.mark.parametrize("double", [Driver, _joulescope_example.Driver])
def test_the_doubles_have_the_calls_of_the_real_driver(double):
    for name in ("open", "close", "publish", "subscribe", "device_paths", "finalize"):
        real, ours = (
            inspect.getdoc(getattr(cls, name)) or "" for cls in (pyjoulescope_driver.Driver, double)
        )
        assert real, name
        for parameter in list(inspect.signature(getattr(double, name)).parameters)[1:]:
            known = {"path": "device_prefix", "hear": "fn", "_": ""}.get(parameter, parameter)
            assert known in real, (name, parameter, ours)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    st.data(),
)
def test_whatever_each_signal_loses_rows_are_what_all_have(runs, data):
    names = ("a", "b", "c")
    had, blocks = {}, {}
    for name in names:
        at, kept, said = 0, set(), []
        for skip, count, _ in data.draw(st.permutations(runs)):
            at += skip
            said.append((at, count))
            kept |= set(range(at, at + count))
            at += count
        had[name], blocks[name] = kept, said
    together, found = Together(names, STEP), []
    order = [(name, one) for name in names for one in blocks[name]]
    place = dict.fromkeys(names, 0)
    for name, _ in data.draw(st.permutations(order)):
        at, count = blocks[name][place[name]]
        place[name] += 1
        together.put(name, Block(at * STEP, STEP, np.arange(at, at + count)))
        found += together.take()
    rows = [one for one in found if isinstance(one, Rows)]
    got = [k for one in rows for k in (one.first // STEP + np.arange(len(one.columns["a"]))).tolist()]
    assert got == sorted(had["a"] & had["b"] & had["c"])
    for one in rows:
        for column in one.columns.values():
            assert np.array_equal(column, one.first // STEP + np.arange(len(column)))
    gaps = [(gap.start // STEP, gap.stop // STEP, gap.lost) for gap in found if isinstance(gap, Gap)]
    assert gaps == [(a, b, b - a - 1) for a, b in pairwise(got) if b - a > 1]


def test_a_delivery_that_comes_twice_counts_once():
    together = Together(("a",), STEP)
    for first in (0, 0, 4, 8):
        together.put("a", Block(first * STEP, STEP, np.arange(first, first + 8)))
    values = np.concatenate([one.columns["a"] for one in together.take()])
    assert np.array_equal(values, np.arange(16))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=12), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_an_inputs_changes_are_found_however_it_is_cut(data, cuts):
    levels = np.unpackbits(np.frombuffer(data * 3, np.uint8), bitorder="little")
    one, found, at = Input(), [], 0
    for cut in [*cuts, len(levels)]:
        part = levels[at : at + cut]
        if len(part):
            found += one.feed(Block(at * 4, 4, np.packbits(part, bitorder="little")))
            at += len(part)
    found += one.feed(Block(at * 4, 4, np.zeros(1, np.uint8)))
    changed = np.r_[0, np.flatnonzero(np.diff(levels[:at])) + 1]
    assert found == [Change(int(k) * 4, bool(levels[k])) for k in changed]
    assert list(one.close()) == []


def test_an_input_that_was_dropped_for_a_while_is_a_gap():
    one = Input()
    assert list(one.feed(Block(0, 4, np.zeros(2, np.uint8)))) == []
    assert list(one.feed(Block(4 * 20, 4, np.full(2, 255, np.uint8)))) == [Change(0, False), Gap(60, 80, 4)]
    assert list(one.close()) == [Change(80, True)]


@pytest.mark.parametrize(
    "harm",
    [{"sample_rate": 16_000_000}, {"decimate_factor": 0}, {"sample_id": "x"}, {"data": [[1.0]]}],
)
def test_a_delivery_of_another_kind_is_refused(harm):
    good = value(0, np.zeros(3, np.float32))
    assert block(good, "x").step == STEP
    with pytest.raises(DeviceError, match="x: expected"):
        block(good | harm, "x")
    with pytest.raises(DeviceError, match="x: expected a block of samples"):
        block({key: one for key, one in good.items() if key not in harm}, "x")


def test_another_rate_than_asked_for_is_refused():
    with pytest.raises(DeviceError, match="a: expected a sample each 200 ids, got each 2"):
        Together(("a",), STEP).put("a", Block(0, 2, np.zeros(1)))


def test_a_rate_that_is_no_divisor_is_refused():
    with pytest.raises(ConfigError, match="hz: expected a divisor of 2000000, got 3000"):
        configure(Joulescope, {"hz": 3000}, "it")

"""The PowerSensor3 collector against its emulator: readings, marks, the clock, every fault."""

import json

import numpy as np
import pytest
import trio
import trio.testing

from melt_stream.analysis.clocks import fit
from melt_stream.collectors import _serial
from melt_stream.collectors.powersensor3 import PowerSensor3
from melt_stream.emulators import Faults, Load
from melt_stream.emulators.powersensor3 import RECORD, Pair
from melt_stream.emulators.powersensor3 import PowerSensor3 as Emulator
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Hub, warm_up
from melt_stream.testing.keep import Keep

pytestmark = pytest.mark.realtime

PERIOD = 50
AMP, VOLT = Pair("", 0.0).step()


async def end(out, running, seconds):
    """Cancel the collector so many seconds after its first row, however busy the machine is."""
    await out.is_ready.wait()
    running.deadline = trio.current_time() + seconds


async def record(seconds, *faults, load="constant:24W", emulator=None, **fields):
    """Run the collector against the emulator."""
    emulator = emulator or Emulator()
    emulator.load, emulator.faults = Load.parse(load), Faults.parse(faults)
    hub, keep = Hub(), Keep()
    warm_up()
    await trio.to_thread.run_sync(PowerSensor3().prepare)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        failed = None
        try:
            out = hub.outlet("it")
            with trio.CancelScope() as running:
                nursery.start_soon(end, out, running, seconds)
                await PowerSensor3(place["port"], **fields).collect(out)
            await trio.testing.wait_all_tasks_blocked(0.05)
        except DeviceError as exc:
            failed = exc
        keep.add(hub.take())
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return emulator, keep


def facts(keep):
    return {row["name"]: json.loads(row["value"]) for row in keep.rows("run.facts")}


async def test_pairs_marks_and_the_clock_of_an_emulated_powersensor3():
    emulator, keep = await record(1.5, "stale", "rate:150", load="square:12W,48W,100ms")
    rows = keep.table("it.slot_12v")
    tick, amps, volts = (rows[name].to_numpy() for name in ("tick", "amps", "volts"))
    assert set(np.diff(tick)) == {PERIOD}
    assert keep.rows("run.gaps") == []
    high = amps > 2.5
    for level, part in ((1.0, amps[~high]), (4.0, amps[high])):
        assert np.abs(part - level).max() <= AMP / 2 * 1.01
    assert np.abs(volts - 12).max() <= VOLT / 2 * 1.01
    edges = np.flatnonzero(np.diff(high.astype(int)))
    assert (
        np.abs(np.diff(edges) - 1000 * 1.00015).max() <= 1
    )  # half a period of 100 ms, by a clock 150 ppm fast
    slot = keep.table("it.slot_3_3v")  # wired the other way round, and so configured
    assert np.abs(slot["amps"].to_numpy() - 1 / 3.3).max() <= AMP / 2 * 1.01
    total = keep.table("it.total")["watts"].to_numpy()
    products = amps * volts + slot["amps"].to_numpy() * slot["volts"].to_numpy()
    np.testing.assert_allclose(total, products, rtol=1e-6)
    assert facts(keep)["firmware"] == "F411-1.6.1"
    assert facts(keep)["period_us"] == 50
    assert emulator.sent.startswith(b"XVRssssssssS")
    assert emulator.sent.endswith(b"T")
    assert not emulator._hung


async def test_each_mark_is_on_the_set_that_the_box_marked_and_ties_the_clock_from_both_sides():
    emulator, keep = await record(1.2, "rate:-120", marks_hz=10.0)
    marks, first = keep.rows("it.marks"), keep.table("it.total")["tick"][0].as_py()
    assert len(marks) >= 8
    zero = marks[0]["tick"] - PERIOD * emulator.marked[0]
    assert [(mark["tick"] - zero) // PERIOD for mark in marks] == emulator.marked[: len(marks)]
    assert 0 <= (first - zero) // PERIOD <= 1
    readings = [row for row in keep.rows("run.readings") if row["kind"] == "round_trip"]
    assert len(readings) == len(marks)
    hz = emulator.nominal_hz * emulator.faults.rate
    for reading, mark, number in zip(readings, marks, emulator.marked, strict=False):
        ended = emulator.started + (number + 1) / hz * 1e9
        assert mark["sent"] == reading["not_before"] < ended < reading["not_after"]
        assert reading["count"] == mark["tick"]
    (clock,) = fit(keep.table("run.readings")).table().to_pylist()
    assert clock["kind"] == "two_way"
    assert abs(clock["drift_ppm"] - 120) <= clock["drift_bound_ppm"]
    started = [row for row in keep.rows("run.readings") if row["kind"] == "cause"]
    assert [row["count"] for row in started] == [first]


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        ("skip@0.4:20", 20),
        ("skip@0.4:1000", 1000),
        ("lose@0.4:1003", 56),
        ("stall@0.4:0.3", 6000),
    ],
)
async def test_a_fault_is_a_gap_of_its_true_length_and_no_reading_is_wrong(fault, lost):
    emulator, keep = await record(1.0 if "stall" in fault else 0.8, fault)
    gaps = keep.rows("run.gaps")
    assert {gap["stream"] for gap in gaps} == {"slot_12v", "slot_3_3v", "total", "marks"}
    for stream in ("slot_12v", "slot_3_3v", "total"):
        (gap,) = [gap for gap in gaps if gap["stream"] == stream]
        assert gap["lost_rows"] == pytest.approx(lost, abs=1)
        tick = keep.table(f"it.{stream}")["tick"].to_numpy()
        (jump,) = np.flatnonzero(np.diff(tick) != PERIOD)
        assert (gap["start"], gap["stop"]) == (tick[jump], tick[jump + 1])
        assert gap["stop"] - gap["start"] == PERIOD * (gap["lost_rows"] + 1)
    rows = keep.table("it.slot_12v")
    assert np.abs(rows["amps"].to_numpy() - 2).max() <= AMP / 2 * 1.01
    assert np.abs(rows["volts"].to_numpy() - 12).max() <= VOLT / 2 * 1.01
    (done,) = emulator.faults.done
    zero = keep.rows("it.marks")[0]["tick"] - PERIOD * emulator.marked[0]
    assert (tick[jump] - zero) / PERIOD == pytest.approx(done.sample, abs=3000)
    last = keep.rows("it.marks")[-1]
    assert (last["tick"] - zero) / PERIOD == emulator.marked[len(keep.rows("it.marks")) - 1]


async def test_junk_between_sets_costs_nothing():
    _, keep = await record(0.6, "junk@0.3:16")
    assert keep.rows("run.gaps") == []
    assert set(np.diff(keep.table("it.total")["tick"].to_numpy())) == {PERIOD}
    assert facts(keep)["framing"]["thrown_bytes"] == 16


async def test_early_firmware_on_another_microcontroller_and_pairs_that_are_not_one_device():
    pairs = [
        Pair("card", 12.0, in_use=False), Pair("Jetson", 19.0, Load.parse("constant:1A")),
        Pair("SSD", 3.3, Load.parse("constant:2W")), Pair("NA", 0.0, in_use=False),
    ]  # fmt: skip
    emulator = Emulator(pairs=pairs, older=True, period_us=400 / 7, version="F401-1.2.0")
    accuracy = {"gain": 0.01, "source": "a calibration"}
    _, keep = await record(0.4, emulator=emulator, total=False, boundaries={"ssd": "rail"}, **accuracy)
    assert b"M" not in emulator.sent  # there is no sensor 0 to bear a mark
    rails = {rail["name"]: rail for rail in keep.rows("run.rails")}
    assert {name: rail["boundary"] for name, rail in rails.items()} == {"Jetson": "dc_in", "SSD": "rail"}
    assert {rail["parent"] for rail in rails.values()} == {None}
    assert {(rail["kind"], rail["gain"], rail["source"]) for rail in rails.values()} == {
        ("mean", 0.01, "a calibration")
    }
    assert rails["Jetson"]["window_ns"] == pytest.approx(57_143, rel=1e-3)
    assert rails["Jetson"]["resolution"] == pytest.approx(AMP * 19, rel=0.01)
    assert set(np.diff(keep.table("it.jetson")["tick"].to_numpy())) == {57, 58}
    assert np.abs(keep.table("it.jetson")["amps"].to_numpy() - 1).max() <= AMP / 2 * 1.01
    assert keep.rows("run.gaps") == []


async def test_the_parts_of_a_total_are_rails_within_it_and_what_is_not_known_is_null():
    _, keep = await record(0.2, emulator=Emulator(version="F407-1.6.1"), offset=0.3)
    rails = {rail["name"]: rail for rail in keep.rows("run.rails")}
    assert {name: (rail["boundary"], rail["parent"], rail["kind"]) for name, rail in rails.items()} == {
        "slot 12V": ("rail", "total", "gauge"), "slot 3.3V": ("rail", "total", "gauge"), "total": ("dc_in", None, "gauge"),
    }  # fmt: skip
    assert rails["total"]["offset"] == pytest.approx(0.3 * 2**0.5)
    assert rails["slot 12V"]["gain"] is rails["total"]["gain"] is rails["total"]["noise"] is None
    assert "state no accuracy" in rails["total"]["source"]


async def test_what_is_unplugged_silent_busy_or_something_else_has_a_name(monkeypatch):
    with pytest.raises(Transient, match="unplugged"):
        await record(5, "unplug@0.1")
    with pytest.raises(Transient, match="expected bytes within 1 s"):
        await record(5, "stall@0.1:9")
    with pytest.raises(DeviceError, match="a pair whose two sensors are in use"):
        await record(1, emulator=Emulator(pairs=[Pair("NA", 0.0, in_use=False)] * 4))
    emulator = Emulator()
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        nursery.start_soon(PowerSensor3(place["port"]).collect, Hub().outlet("first"))
        await emulator._streaming.wait()
        with pytest.raises(DeviceError, match="another program has it open"):
            await PowerSensor3(place["port"]).collect(Hub().outlet("second"))
        nursery.cancel_scope.cancel()
    monkeypatch.setattr(_serial, "found", lambda *_: [])
    with pytest.raises(DeviceError, match="expected one PowerSensor3 on USB, got none"):
        await PowerSensor3().collect(Hub().outlet("none"))
    assert not PowerSensor3().check().ok


async def test_one_that_was_plugged_in_again_goes_on_with_the_same_streams_and_rails(tmp_path):
    hub, keep, port = Hub(), Keep(), tmp_path / "port"
    out, collector = hub.outlet("it"), PowerSensor3(str(port))
    collector.prepare()
    for fault, volts in (("unplug@0.2", 12.0), ("unplug@0.3", 11.5)):
        emulator = Emulator(
            pairs=[Pair("slot 12V", volts), *Emulator().pairs[1:]], faults=Faults.parse([fault])
        )
        async with trio.open_nursery() as nursery:
            place = await nursery.start(emulator.play)
            port.unlink(missing_ok=True)
            port.symlink_to(place["port"])
            with pytest.raises(Transient, match="unplugged"):
                await collector.collect(out)
            out.broken("unplugged")
    keep.add(hub.take())
    assert len(keep.rows("run.rails")) == 3
    assert set(keep.table("it.total")["epoch"].to_pylist()) == {0, 1}
    assert {gap["stream"] for gap in keep.rows("run.gaps")} == {"slot_12v", "slot_3_3v", "total", "marks"}
    assert all("unplugged" in gap["reason"] for gap in keep.rows("run.gaps"))


async def test_a_box_that_somebody_left_in_the_middle_of_its_configuration_is_brought_back():
    emulator = Emulator()
    emulator._left = 3  # it waits for three more acknowledgements, and takes anything for one
    emulator, keep = await record(0.1, emulator=emulator)
    assert emulator.sent.startswith(b"XXXXV")
    assert facts(keep)["sensors"][0]["pair"] == "slot 12V"
    assert len(keep.table("it.total")) > 0


async def test_what_does_not_stop_is_no_powersensor3(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._powersensor3_link.TRIES", 2)
    with pytest.raises(DeviceError, match="expected a stop marker after 2 stop commands"):
        await record(1, emulator=Hung())


class Hung(Emulator):
    """As one that was stopped at the wrong moment."""

    _hung = True

    def __init__(self):
        super().__init__()
        self._hung = True


async def test_a_box_that_is_left_alone_in_the_middle_resets_itself(autojump_clock):
    emulator = Emulator()
    emulator._left = 1
    with trio.fail_after(10):
        await emulator.play()
    assert len(emulator.config) == 8 * RECORD.size

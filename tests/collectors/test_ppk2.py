"""The PPK2 collector: its pure parts with every harm, the whole against the emulator."""

import random

import numpy as np
import pytest
import trio
import trio.testing
from serial.tools import list_ports, list_ports_common

from melt_stream.analysis.clocks import fit
from melt_stream.collectors import _decode_ppk2 as kernels
from melt_stream.collectors import ppk2
from melt_stream.collectors._ppk2_framing import Break, Framing
from melt_stream.collectors._ppk2_metadata import parse
from melt_stream.collectors._ppk2_timeline import Gap, Samples, Timeline
from melt_stream.collectors.ppk2 import Ppk2
from melt_stream.emulators import Faults, Load
from melt_stream.emulators.ppk2 import Ppk2 as Emulator
from melt_stream.emulators.ppk2 import step
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Hub, warm_up
from melt_stream.testing.keep import Keep

pytestmark = pytest.mark.realtime


def words(count, seed=0):
    """Samples that can be told apart: an ADC field and inputs of noise."""
    rng = np.random.default_rng(seed)
    fields = (
        rng.integers(0, 1 << 14, count)
        | (3 << 14)
        | ((np.arange(count) & 63) << 18)
        | (rng.integers(0, 256, count) << 24)
    )
    return fields.astype("<u4")


def fed(data, rng):
    """What framing makes of bytes that come in pieces of any size."""
    framing, found = Framing(), []
    while data:
        size = rng.choice([1, 3, 400, 1601, 4095])
        found += framing.feed(data[:size])
        data = data[size:]
    return framing, found


@pytest.mark.parametrize("seed", range(60))
def test_after_lost_bytes_no_word_is_wrong_and_the_gap_is_true(seed):
    rng, sent = random.Random(seed), words(3000, seed)
    at, lost = rng.randrange(2000, 9000), rng.choice([rng.randrange(1, 8), rng.randrange(1, 240)])
    raw = sent.tobytes()
    _, found = fed(raw[:at] + raw[at + lost :], rng)
    (broken,) = [k for k, piece in enumerate(found) if isinstance(piece, Break)]
    before, gap, after = np.concatenate(found[:broken]), found[broken], np.concatenate(found[broken + 1 :])
    destroyed = (at + lost - 1) // 4 - at // 4 + 1
    assert destroyed <= gap.residue <= destroyed + 2
    assert np.array_equal(before[:-1], sent[1 : len(before)])
    assert before[-1] & 0xFFFFFF == sent[len(before)] & 0xFFFFFF  # its inputs may be those after the loss
    resumed = 1 + len(before) + gap.residue
    assert np.array_equal(after, sent[resumed : resumed + len(after)])


def test_counters_that_are_unsteady_are_no_loss():
    sent = words(1000)
    sent[500:503] ^= np.uint32(17 << 18)
    framing, found = fed(sent.tobytes(), random.Random(1))
    assert np.array_equal(np.concatenate(found), sent[1:-4])
    assert framing.unsteady == 3


def test_what_is_no_ppk2_is_called_so():
    with pytest.raises(Transient, match="counter goes up by one, got 65"):
        fed(random.Random(1).randbytes(70_000), random.Random(2))


def played(lost, at=150_000, rate=1.0, pause_ns=0, residue=None):
    """Gaps that a timeline sees where ``lost`` samples vanish at ``at``; blocks of 4 ms, delays of up to 2 ms."""
    rng, timeline, gaps, runs = random.Random(7), Timeline(), [], []
    position, sample = -1000, np.zeros(400, np.uint32)
    for k in range(1000):
        found = [sample]
        if position <= at < position + 400:
            position += lost
            found = [Break(lost % 64 if residue is None else residue, 4), sample]
        position += 400
        arrival = (
            round(position * 10_000 / rate) + rng.randrange(0, 2_000_000) + (pause_ns if k >= 500 else 0)
        )
        for piece in timeline.take(found, 4, arrival):
            (gaps if isinstance(piece, Gap) else runs if isinstance(piece, Samples) else []).append(piece)
    return gaps, runs, timeline


@pytest.mark.parametrize("lost", [1, 17, 63, 64, 65, 137, 1000, 30_000])
@pytest.mark.parametrize("rate", [1.0, 1.00015])
def test_the_clock_tells_how_often_the_counter_went_round(lost, rate):
    gaps, runs, timeline = played(lost, rate=rate)
    assert [gap.lost for gap in gaps] == [lost]
    assert runs[-1].tick + 400 == 400 * 1000 - 1000 + lost
    assert timeline.ambiguous == 0


def test_a_gap_before_there_is_a_clock_says_what_it_does_not_know():
    timeline = Timeline()
    list(timeline.take([np.zeros(2000, np.uint32), Break(9, 4), np.zeros(100, np.uint32)], 4, 0))
    gap, *_ = timeline.finish()
    assert gap.lost == 9
    assert "no clock yet" in gap.reason


def test_a_gap_that_the_clock_cannot_tell_names_both_lengths():
    rng, timeline, gaps = random.Random(3), Timeline(), []
    position = 0
    for k in range(400):  # after the break, all is late by half as much as 64 samples take
        found = [np.zeros(400, np.uint32)]
        if k == 200:
            position += 73
            found.insert(0, Break(9, 4))
        position += 400
        late = 320_000 if k >= 200 else 0
        arrival = position * 10_000 + rng.randrange(0, 2_000_000) + late
        gaps += [piece for piece in timeline.take(found, 4, arrival) if isinstance(piece, Gap)]
    gaps += [piece for piece in timeline.finish() if isinstance(piece, Gap)]
    assert gaps[0].lost % 64 == 9
    assert f"cannot tell {gaps[0].lost} from" in gaps[0].reason
    assert timeline.ambiguous == 1


def test_metadata_may_lack_keys_and_numbers():
    read = parse(b"Calibrated: 1\nR0: 1003.35\nGI0: -nan\nR1: nan\nVDD: 3700\nEND\njunk")
    assert read.modifiers["R"][:2] == [1003.35, 101.65]
    assert {"GI0", "R1", "R4"} <= set(read.defaulted)
    assert read.vdd_mv == 3700
    with pytest.raises(DeviceError, match="expected a PPK2's metadata"):
        parse(b"hello: world\nEND")


def test_the_table_is_the_formula():
    read = parse(b"R3: 0.9636\nGS3: 2.4217\nGI3: 0.9519\nO3: 50.5\nS3: 0.001\nI3: -0.0002\nUG3: 1.1\nEND")
    x = (1234 * 4 - 50.5) * 1.8 / 163840 / 0.9636
    expected = 1.1 * (x * (2.4217 * x + 0.9519) + 0.001 * 3.7 - 0.0002)
    assert read.table(3.7)[3 << 14 | 1234] == pytest.approx(expected, rel=1e-6)


def test_the_spike_filter_replaces_three_samples_after_a_change_of_range():
    amps = np.array([0.04] * 50 + [0.4, 0.06, 0.06, 0.06, 0.06], np.float32)
    ranges = np.array([3] * 50 + [4] * 5, np.uint8)
    kernels.smooth(amps, ranges, np.array([np.nan, np.nan, -1, 0, 0]))
    assert amps[50] == amps[51] == pytest.approx(0.04)  # in range 4 two samples do not move the average
    assert amps[52] == pytest.approx(0.94 * 0.04 + 0.06 * 0.06)
    assert amps[53] == pytest.approx(0.06)


async def end(out, running, seconds):
    """Cancel the collector so many seconds after its first row, however busy the machine is."""
    await out.is_ready.wait()
    running.deadline = trio.current_time() + seconds


async def record(seconds, *faults, load="square:100mA,500mA,100ms", settings=(), **fields):
    """Run the collector against the emulator."""
    emulator = Emulator(load=Load.parse(load), faults=Faults.parse(faults), **dict(settings))
    hub, keep = Hub(), Keep()
    warm_up()
    await trio.to_thread.run_sync(Ppk2(3.7).prepare)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        collector = Ppk2(3.7, port=place["port"], **fields)
        failed = None
        try:
            out = hub.outlet("it")
            with trio.CancelScope() as running:
                nursery.start_soon(end, out, running, seconds)
                await collector.collect(out)
            await trio.testing.wait_all_tasks_blocked(0.05)
        except DeviceError as exc:
            failed = exc
        keep.add(hub.take())
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return emulator, keep


async def test_power_edges_inputs_and_the_clock_of_an_emulated_ppk2():
    emulator, keep = await record(2.5, "stale", "rate:150", settings={"logic": [(1.4, 0x01), (1.8, 0x80)]})
    rows = keep.table("it.power")
    tick, amps = rows["tick"].to_numpy(), rows["amps"].to_numpy()
    assert np.array_equal(tick, np.arange(len(tick)))
    assert keep.rows("run.gaps") == []
    high = amps > 0.3
    for level, part in ((0.1, amps[~high]), (0.5, amps[high])):
        assert np.abs(part - level).max() <= step(level) / 2 * 1.01
    edges = np.flatnonzero(np.diff(high.astype(int)))
    assert (
        np.abs(np.diff(edges) - 5000 * 1.00015).max() <= 1
    )  # half a period of 100 ms, by a clock 150 ppm fast
    changes = [(row["pin"], row["level"], row["tick"]) for row in keep.rows("it.logic")[8:]]
    assert [change[:2] for change in changes] == [(0, True), (0, False), (7, True)]
    assert changes[1][2] - changes[0][2] == pytest.approx(40_006, abs=1)
    (clock,) = fit(keep.table("run.readings")).table().to_pylist()
    assert clock["clock"] == "it.sample"
    assert abs(clock["drift_ppm"] + 150) <= clock["drift_bound_ppm"] < 500
    (rail,) = keep.rows("run.rails")
    assert rail["gain"] == pytest.approx(0.0866, abs=1e-3)
    assert emulator.sent.startswith(b"\x07\x19\x11\x02\x0d\x0e\x74\x0c\x01\x06")
    assert emulator.sent.endswith(b"\x07")


@pytest.mark.parametrize(
    ("fault", "lost"),
    [
        ("skip@0.8:40", 40),
        ("skip@0.8:1000", 1000),
        ("lose@0.8:1003", 251),
        ("junk@0.8:16", 0),
        ("stall@0.8:0.3", 30_000),
    ],
)
async def test_a_fault_is_a_gap_of_its_true_length_and_no_reading_is_wrong(fault, lost):
    emulator, keep = await record(2.0, fault, load="constant:370mW")
    gaps = [gap for gap in keep.rows("run.gaps") if gap["stream"] == "power"]
    assert [gap["lost_rows"] for gap in gaps] == [pytest.approx(lost, abs=2 if "lose" in fault else 1)]
    rows = keep.table("it.power")
    assert np.abs(rows["amps"].to_numpy() - 0.1).max() <= step(0.1) / 2 * 1.01
    tick = rows["tick"].to_numpy()
    (jump,) = np.flatnonzero(np.diff(tick) != 1)
    assert (gaps[0]["start"], gaps[0]["stop"]) == (tick[jump], tick[jump + 1])
    assert emulator.faults.done[0].sample == pytest.approx(tick[jump] + 1000, abs=5000)


async def test_unsteady_counters_lose_nothing():
    _, keep = await record(0.6, settings={"unsteady": 700})
    assert keep.rows("run.gaps") == []
    counted = next(row["value"] for row in keep.rows("run.facts") if row["name"] == "counters")
    assert '"unsteady": 0' not in counted


async def test_an_unplugged_ppk2_and_a_second_opener_have_names(monkeypatch):
    with pytest.raises(Transient, match="unplugged"):
        await record(5, "unplug@0.3")
    emulator = Emulator()
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        hub = Hub()
        nursery.start_soon(Ppk2(3.7, port=place["port"]).collect, hub.outlet("first"))
        await emulator._streaming.wait()
        with pytest.raises(DeviceError, match="another program has it open"):
            await Ppk2(3.7, port=place["port"]).collect(hub.outlet("second"))
        nursery.cancel_scope.cancel()
    monkeypatch.setattr(ppk2, "found", lambda _: [])
    with pytest.raises(DeviceError, match="expected one PPK2 on USB, got none"):
        await Ppk2(3.7).collect(Hub().outlet("none"))


async def test_in_ampere_mode_the_supply_is_somebody_elses():
    emulator, keep = await record(0.4, load="constant:1W", mode="ampere", power_off=True)
    assert b"\x11\x01\x0c\x01\x06" in emulator.sent
    assert emulator.sent.endswith(b"\x07\x0c\x00")
    rows = keep.table("it.power")
    watts = rows["amps"].to_numpy() * rows["volts"].to_numpy()
    assert watts.mean() == pytest.approx(1.0, abs=step(0.27) * 3.7 / 2)


def test_doctor_finds_the_measuring_port_of_a_box_without_its_settings(monkeypatch):
    def port(device, location):
        info = list_ports_common.ListPortInfo(device)
        info.vid, info.pid, info.product, info.location, info.serial_number = (
            0x1915,
            0xC00A,
            "PPK2",
            location,
            "E1",
        )
        return info

    monkeypatch.setattr(list_ports, "comports", list)
    assert Ppk2.here().what == "no PPK2 on USB (1915:c00a)"
    ports = [port("/dev/ttyACM1", "1-2:1.3"), port("/dev/ttyACM0", "1-2:1.1")]  # the second one is a shell
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert Ppk2.here().what == "/dev/ttyACM0 is not there"

"""The KM003C: its decoder on frames of a real meter, beside PyPI km003c's; the collector on a made-up meter at the seam."""

from __future__ import annotations

import itertools
import os
from functools import cache
from pathlib import Path

import km003c as theirs
import numpy as np
import pytest
import usb.core
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from melt_stream.analysis.clocks import fit
from melt_stream.clock import Reading
from melt_stream.collectors import _km003c as wire
from melt_stream.collectors import _km003c_usb
from melt_stream.collectors._km003c_example import Meter, framed
from melt_stream.collectors._km003c_link import Link
from melt_stream.collectors._km003c_timeline import Gap, Samples, Shown, Timeline
from melt_stream.collectors.km003c import SAMPLE, Km003c
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[3] / "shared" / "traces")) / "km003c"
recorded = pytest.mark.skipif(not TRACES.exists(), reason=f"no recorded frames in {TRACES}")


@cache
def frames(name="km003c_raw_captures"):
    """Time in ns, whether it is the meter's, and bytes, of every frame of a session that others recorded."""
    rows = parquet.read_table(TRACES / f"{name}.parquet").to_pylist()
    return [
        (round(row["timestamp"] * 1e9), row["direction"] == "DeviceToHost", bytes(row["raw_bytes"]))
        for row in rows
    ]


@cache
def exchanges():
    """The recorded answers with samples: when asked, when answered, and the answer."""
    asked, found = {}, []
    for at, is_answer, data in frames():
        head = wire.frame(data)
        if not is_answer and head.kind == wire.GET_DATA:
            asked[head.number] = at
        elif is_answer and head.kind == wire.PUT_DATA and wire.QUEUE in wire.parts(head):
            found.append((asked[head.number], at, head))
    return found


def fed(timeline, blocks):
    pieces = [piece for block in blocks for piece in timeline.take(*block)]
    return [*pieces, *timeline.finish()]


def ticks_of(pieces):
    return np.concatenate([piece.tick for piece in pieces if isinstance(piece, Samples)])


@recorded
@pytest.mark.parametrize(("name", "count"), [("km003c_raw_captures", 605), ("km003c_test_captures", 42)])
def test_every_recorded_frame_means_what_the_package_says(name, count):
    assert len(frames(name)) == count
    samples = 0
    for _, is_answer, data in frames(name):
        head = wire.frame(data)
        if not is_answer or head.kind != wire.PUT_DATA or head.data[0] & 0x80:
            continue
        raw = theirs.parse_raw_packet(data)["Data"]
        assert head.number == raw["header"]["id"]
        logical = {part["attribute"]: bytes(part["payload"]) for part in raw["logical_packets"]}
        assert wire.parts(head) == logical
        queued = wire.samples(head)
        values = wire.columns(queued, 1000)
        payloads = theirs.parse_packet_with_graph_rate(data, theirs.RATE_1000_SPS)["DataResponse"]["payloads"]
        named = [payload for payload in payloads if isinstance(payload, theirs.AdcQueueData)]
        expected = [sample for payload in named for sample in payload.samples]
        assert len(queued) == len(expected)
        assert queued["sequence"].tolist() == [sample.sequence for sample in expected]
        assert queued["marker"].tolist() == [sample.marker for sample in expected]
        for ours, other in (
            ("volts", "vbus_v"), ("amps", "ibus_a"), ("cc1", "cc1_v"), ("cc2", "cc2_v"), ("d_plus", "vdp_v"), ("d_minus", "vdm_v"),
        ):  # fmt: skip
            assert values[ours] == pytest.approx([getattr(sample, other) for sample in expected], rel=1e-6)
        samples += len(queued)
    assert samples == (9238 if count == 605 else 0)


@recorded
def test_the_recorded_session_is_one_run_without_a_hole_whose_clock_is_bound_from_both_sides():
    pieces = fed(Timeline(1), [(asked, at, wire.samples(head)) for asked, at, head in exchanges()])
    assert ticks_of(pieces).tolist() == list(range(78, 9316))
    assert not [piece for piece in pieces if isinstance(piece, Gap)]
    hub, keep = Hub(), Keep()
    out = hub.outlet("it")
    for shown in (piece for piece in pieces if isinstance(piece, Shown)):
        out.clock_reading(
            Reading(SAMPLE, shown.tick, resolution=1, not_before=shown.not_before, not_after=shown.not_after)
        )
    keep.add(hub.take())
    (clock,) = fit(keep.table("run.readings")).table().to_pylist()
    assert clock["kind"] == "two_way"
    assert clock["residual_ns"] == 0  # no two of them contradict each other
    assert clock["bound_ns"] < 2_000_000
    assert abs(clock["drift_ppm"]) <= clock["drift_bound_ppm"] < 1000


@recorded
@given(st.integers(1, 200), st.integers(1, 25), st.integers(0, 65_535))
def test_answers_cut_from_the_recorded_session_are_gaps_of_their_length_wherever_the_counter_wraps(
    first, count, shift
):
    blocks = []
    for asked, at, head in exchanges():
        queued = wire.samples(head).copy()
        queued["sequence"] += np.uint16(shift)
        blocks.append((asked, at, queued))
    lost = sum(len(queued) for *_, queued in blocks[first : first + count])
    pieces = fed(Timeline(1), blocks[:first] + blocks[first + count :])
    (gap,) = [piece for piece in pieces if isinstance(piece, Gap)]
    assert gap.lost == lost
    ticks = ticks_of(pieces)
    (jump,) = np.flatnonzero(np.diff(ticks) != 1)
    assert (gap.start, gap.stop) == (ticks[jump], ticks[jump + 1])
    assert gap.stop - gap.start == lost + 1


@recorded
def test_every_beginning_of_a_recorded_answer_is_refused():
    *_, head = exchanges()[0]
    for size in range(len(head.data)):
        with pytest.raises(Transient):
            wire.samples(wire.frame(head.data[:size]))


class Replayed:
    """The recorded meter at the seam: answers with the frame that it gave then, under the number that is asked now."""

    def __init__(self):
        self.theirs = [data for _, is_answer, data in frames() if is_answer]
        self.queues = [head.data for *_, head in exchanges()]
        self.waiting = []

    def first(self, *kinds):
        return next(k for k, data in enumerate(self.theirs) if data[0] & 0x7F in kinds)

    def write(self, data):
        kind = data[0]
        if kind == wire.MEMORY_READ:
            address = theirs.decrypt_memory_payload(data[4:36])[:4]
            at = next(
                k for k, told in enumerate(self.theirs) if told[0] == 0xC4 and told[4:8] == bytes(address)
            )
            answers = self.theirs[at : at + 2]
        elif kind == wire.STREAMING_AUTH:
            self.waiting.append(self.theirs[self.first(wire.STREAMING_AUTH)])  # always under the number 0
            return
        elif kind == wire.GET_DATA:
            answers = [self.queues.pop(0)]
        else:
            answers = [self.theirs[self.first(wire.ACCEPT)]]
        head, *rest = answers
        self.waiting += [head[:1] + data[1:2] + head[2:], *rest]

    def read(self):
        return self.waiting.pop(0)


@recorded
def test_the_handshake_as_the_recorded_meter_answered_it():
    link = Link(Replayed(), now=iter(range(1_000_000)).__next__)
    assert link.connect() == {
        "model": "KM003C",
        "hardware": "2.1",
        "firmware": "1.9.5",
        "hardware_id": b"071KBP\r\xff\x11\n\xff\xff".hex(),
    }
    link.start(1000)
    answers = [link.queue() for _ in range(231)]
    assert sum(len(wire.samples(answer.frame)) for answer in answers) == 9238
    link.stop()


def made(count, first=0, step=1, **fields):
    queued = np.zeros(count, wire.SAMPLE)
    queued["sequence"] = (first + step * np.arange(count)) & 0xFFFF
    for name, value in fields.items():
        queued[name] = value
    return queued


@pytest.mark.parametrize("count", [0, 1, 39, 46, 64, 200])
def test_the_package_reads_the_answers_that_we_make(count):
    data = framed(7, made(count, 65_500, vbus=-1_234_567, ibus=987_654, cc1=3300))
    assert len(wire.samples(wire.frame(data))) == count
    if not count:
        return
    (queue,) = theirs.parse_packet_with_graph_rate(data, theirs.RATE_2_SPS)["DataResponse"]["payloads"]
    assert [sample.sequence for sample in queue.samples] == made(count, 65_500)["sequence"].tolist()
    assert queue.samples[0].vbus_v == pytest.approx(-1.234567)
    assert queue.samples[-1].ibus_a == pytest.approx(0.987654)
    ours = wire.columns(wire.samples(wire.frame(data)), 2)
    assert queue.samples[0].cc1_v == pytest.approx(0.33) == pytest.approx(ours["cc1"][0])


def test_the_package_makes_the_commands_that_we_make():
    for kind, number, attribute in itertools.product(
        (wire.CONNECT, wire.GET_DATA, wire.START_GRAPH), (0, 255), (0, 2, 3)
    ):
        assert wire.request(kind, number, attribute) == bytes(theirs.create_packet(kind, number, attribute))


@given(st.binary(max_size=200))
def test_junk_is_refused_or_holds_whole_samples(junk):
    try:
        wire.samples(wire.frame(junk))
    except Transient:
        return
    assert junk[0] & 0x7F == wire.PUT_DATA


@given(st.integers(0, 1000), st.integers(1, 60))
def test_an_answer_that_lost_bytes_is_refused(place, lost):
    data = framed(1, made(50))
    place %= len(data) - lost
    if lost % 20 or place < 8:
        with pytest.raises(Transient):
            wire.samples(wire.frame(data[:place] + data[place + lost :]))


MS = 1_000_000


def test_a_wrap_within_an_answer_and_between_answers():
    blocks = [(k * 40 * MS, k * 40 * MS + MS, made(40, 65_516 + 40 * k)) for k in range(3)]
    pieces = fed(Timeline(1), blocks)
    assert ticks_of(pieces).tolist() == list(range(65_516, 65_516 + 120))


@pytest.mark.parametrize("step", [1, 20, 100, 500])
def test_samples_that_never_came_are_a_gap_at_every_rate(step):
    blocks = [
        (start * step * MS, (start + 10) * step * MS, made(10, start * step, step)) for start in (0, 10, 25)
    ]
    pieces = fed(Timeline(step), blocks)
    (gap,) = [piece for piece in pieces if isinstance(piece, Gap)]
    assert (gap.start, gap.stop, gap.lost) == (19 * step, 25 * step, 5)


def test_an_answer_before_samples_that_were_lost_bounds_the_clock_from_one_side_only():
    blocks = [(k * MS, k * MS + MS, made(10, k - 10)) for k in (10, 20, 30)] + [
        (60 * MS, 61 * MS, made(10, 50))
    ]
    shown = [piece for piece in fed(Timeline(1), blocks) if isinstance(piece, Shown)]
    assert [(one.tick, one.not_before, one.not_after) for one in shown] == [
        (9, 10 * MS, 11 * MS),
        (19, 20 * MS, 21 * MS),
        (29, None, 31 * MS),  # 20 samples after it are lost: they may have been queued, and lost, by then
        (59, None, 61 * MS),
    ]


def test_two_holes_in_one_answer():
    queued = made(60)[np.r_[0:10, 13:30, 50:60]]
    gaps = [piece for piece in fed(Timeline(1), [(0, 60 * MS, queued)]) if isinstance(piece, Gap)]
    assert [(gap.start, gap.stop, gap.lost) for gap in gaps] == [(9, 13, 3), (29, 50, 20)]


@pytest.mark.parametrize(
    "second",
    [0, 20_000, 38, pytest.param(39, id="the same twice: once round, at 1 kHz that takes a minute")],
)
def test_a_counter_that_cannot_be_is_an_error_and_nothing_of_the_answer_counts(second):
    timeline = Timeline(1)
    list(timeline.take(0, 40 * MS, made(40)))
    with pytest.raises(Transient, match="started anew"):
        list(timeline.take(80 * MS, 81 * MS, made(40, second)))


def test_after_a_silence_that_could_hide_a_wrap_nothing_is_believed():
    timeline = Timeline(1)
    list(timeline.take(0, 40 * MS, made(40)))
    with pytest.raises(Transient, match=r"expected samples within 20 s"):
        list(timeline.take(30_000 * MS, 30_001 * MS, made(40, 30_000)))


def test_a_full_answer_does_not_say_that_there_were_no_more():
    pieces = fed(Timeline(1), [(0, 70 * MS, made(64))])
    (shown,) = [piece for piece in pieces if isinstance(piece, Shown)]
    assert (shown.tick, shown.not_before, shown.not_after) == (63, None, 70 * MS)


def ramp(ms):
    return ms / 1000


async def test_samples_rail_facts_and_the_clock_of_a_made_up_meter():
    meter = Meter(amps=ramp, first=65_300, rate=1.00015)
    async with collecting(Km003c(usb=meter)) as watched:
        await watched.until(lambda: len(watched.of("usb")) > 900)
    rows = watched.of("usb")
    assert [row["tick"] for row in rows] == list(
        range(65_300, 65_300 + len(rows))
    )  # the counter wraps at 65,536
    assert [row["amps"] for row in rows] == pytest.approx([k / 1000 for k in range(len(rows))])
    assert {(row["volts"], row["cc1"], round(row["d_plus"], 6)) for row in rows} == {(5.0, 0.0, 0.6)}
    assert watched.gaps() == []
    (rail,) = watched.rows("run.rails")
    assert (rail["name"], rail["boundary"], rail["kind"], rail["gain"]) == ("usb", "dc_in", "gauge", None)
    facts = {row["name"]: row["value"] for row in watched.rows("run.facts")}
    assert facts["set"] == '{"hz": 1000, "reverse": false}'
    assert len(facts["hardware_id"]) == 2 + 24
    clocks = fit(watched.table("run.readings")).table().to_pylist()
    (clock,) = [clock for clock in clocks if clock["clock"] == "it.sample"]
    assert (clock["kind"], clock["residual_ns"]) == ("two_way", 0)
    assert abs(clock["drift_ppm"] + 150) <= clock["drift_bound_ppm"]
    assert meter.heard[:7] == [wire.CONNECT, *[wire.MEMORY_READ] * 3, wire.STREAMING_AUTH, wire.STOP_GRAPH, wire.START_GRAPH]  # fmt: skip
    assert meter.heard[-1] == wire.STOP_GRAPH
    assert meter.closed


@pytest.mark.parametrize("hz", [10, 50])
async def test_slower_rates(hz):
    meter = Meter(amps=ramp)
    async with collecting(Km003c(usb=meter, hz=hz, reverse=True)) as watched:
        await watched.until(lambda: len(watched.of("usb")) > 5)
    rows = watched.of("usb")
    assert {after["tick"] - row["tick"] for row, after in itertools.pairwise(rows)} == {1000 // hz}
    assert [row["amps"] for row in rows] == pytest.approx([-k / hz for k in range(len(rows))])
    assert watched.gaps() == []


async def test_samples_that_a_meter_skips_are_a_gap_of_their_length():
    meter = Meter(amps=ramp, lost=[(200, 37), (400, 1)])
    async with collecting(Km003c(usb=meter)) as watched:
        await watched.until(lambda: len(watched.of("usb")) > 500)
    gaps = watched.gaps("usb")
    assert [(gap["start"], gap["stop"], gap["lost_rows"]) for gap in gaps] == [
        (78 + 199, 78 + 237, 37),
        (78 + 399, 78 + 401, 1),
    ]
    for row in watched.of("usb"):
        assert row["amps"] == pytest.approx((row["tick"] - 78) / 1000)


@pytest.mark.parametrize(
    ("harm", "said"), [("silent", "expected an answer within"), ("plugged", "was it unplugged")]
)
async def test_a_meter_that_falls_silent_or_is_unplugged_is_a_named_gap_and_begins_a_new_epoch(harm, said):
    meter = Meter(amps=ramp)
    async with collecting(Km003c(usb=meter)) as watched:
        await watched.until(lambda: watched.of("usb"))
        setattr(meter, harm, harm == "silent")
        before = len(watched.of("usb"))
        await watched.until(lambda: meter.closed)
        setattr(meter, harm, harm != "silent")
        await watched.until(lambda: watched.gaps("usb") and watched.of("usb")[-1]["epoch"])
    (gap,) = watched.gaps("usb")
    assert said in gap["reason"]
    old = [row for row in watched.of("usb") if row["epoch"] == 0]
    new = [row for row in watched.of("usb") if row["epoch"]]
    assert len(old) >= before
    assert gap["start"] == old[-1]["tick"]
    for rows in (old, new):
        assert [row["tick"] for row in rows] == list(range(78, 78 + len(rows)))
        assert [row["amps"] for row in rows] == pytest.approx([k / 1000 for k in range(len(rows))])


async def test_a_meter_whose_counter_is_started_anew_by_others_is_asked_again():
    meter = Meter()
    async with collecting(Km003c(usb=meter)) as watched:
        await watched.until(lambda: watched.of("usb"))
        meter.first += 30_000
        await watched.until(lambda: watched.gaps("usb"))
        assert "started anew" in watched.gaps("usb")[0]["reason"]


async def test_a_meter_that_queues_nothing_is_told(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors.km003c.SILENCE_NS", 50 * MS)
    meter = Meter(lost=[(100, 10_000)])
    async with collecting(Km003c(usb=meter)) as watched:
        await watched.until(lambda: watched.gaps("usb"))
        assert "expected samples, got empty answers for" in watched.gaps("usb")[0]["reason"]


async def test_a_meter_that_does_not_unlock_its_queue_ends_the_run():
    ending = await record({"it": Km003c(usb=Meter(unlocks=False))}, [Keep()])
    assert isinstance(ending.error, DeviceError)
    assert "expected it to unlock its queue, got 4c000102" in str(ending.error)


def test_late_answers_are_passed_over_and_a_refusal_is_told():
    meter = Meter()
    link = Link(meter, now=meter.now)
    link.connect()
    link.start(1000)
    meter.write(wire.request(wire.GET_DATA, 99, wire.QUEUE))  # nobody reads this answer in time
    assert link.queue().frame.number == link.number
    meter._out.append(wire.request(wire.REJECT, link.number + 1))
    with pytest.raises(DeviceError, match="expected it to accept command 0x0f, got 06"):
        link.stop()


class Broken:
    """What pyusb's device does when all goes wrong."""

    def __init__(self, error):
        self.error = error

    def write(self, *_):
        raise self.error

    read = write


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (usb.core.USBTimeoutError("timed out", errno=110), Transient, "within 500 ms, got none"),
        (usb.core.USBError("No such device", errno=19), Transient, "was it unplugged"),
        (usb.core.USBError("Resource busy", errno=16), DeviceError, "another program has it"),
        (usb.core.USBError("Access denied", errno=13), DeviceError, "may not; add a udev rule"),
    ],
)
def test_what_pyusb_raises_has_a_name(error, kind, said):
    bulk = _km003c_usb.Bulk(Broken(error))
    for call in (bulk.read, lambda: bulk.write(b"")):
        with pytest.raises(DeviceError, match=said) as caught:
            call()
        assert type(caught.value) is kind
    bulk.throw_away()


async def test_none_is_plugged_in(monkeypatch):
    monkeypatch.setattr(usb.core, "find", lambda **_: iter(()))
    assert "no KM003C on USB" in Km003c().check().what
    with pytest.RaisesGroup(pytest.RaisesExc(Transient, match="is it plugged in")):
        await Km003c().collect(Hub().outlet("it"))

    def without(**_):
        raise usb.core.NoBackendError("No backend available")

    monkeypatch.setattr(usb.core, "find", without)
    assert Km003c().check().cure == "apt install libusb-1.0-0"


def test_a_rate_that_it_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="input should be 2, 10, 50 or 1000"):
        configure(Km003c, {"hz": 100}, "it")


@given(st.integers(0, 2**32))
def test_whatever_is_lost_no_sample_gets_anothers_tick(seed):
    rng = np.random.default_rng(seed)
    true = np.flatnonzero(rng.random(3000) > rng.choice([0, 0.01, 0.5])) + int(rng.integers(0, 65_536))
    timeline, at = Timeline(1), 0
    pieces, sent = [], []
    for ticks in np.split(true, np.sort(rng.integers(1, len(true), 60))):
        if not len(ticks) or rng.random() < 0.1:
            continue
        queued = made(len(ticks))
        queued["sequence"], queued["vbus"] = ticks & 0xFFFF, ticks
        answered = int(ticks[-1] - true[0] + 1) * MS + int(rng.integers(0, 5 * MS))
        pieces += timeline.take(max(at, answered - 6 * MS), answered, queued)
        sent.append(ticks)
        at = answered
    for piece in pieces:
        if isinstance(piece, Samples):
            assert (piece.tick - piece.queued["vbus"] == (sent[0][0] & 0xFFFF) - sent[0][0]).all()
    lost = sum(piece.lost for piece in pieces if isinstance(piece, Gap))
    kept = np.concatenate(sent)
    assert lost == kept[-1] - kept[0] + 1 - len(kept)

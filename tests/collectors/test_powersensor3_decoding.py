"""The PowerSensor3's pure parts: sets out of bytes with every harm, and ticks out of 10 bits and arrivals."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.collectors import _powersensor3 as box
from melt_stream.collectors._powersensor3_framing import LEARN, Beat, Framing, Rows
from melt_stream.collectors._powersensor3_timeline import Gap, Marked, Samples, Shown, Timeline
from melt_stream.errors import DeviceError, Transient

HEAD = LEARN + 60
"""Sets that are left whole: the period is found in them."""


def record(kind="MLX10", pair="gpu", vref=1.65, sensitivity=0.12, in_use=True):
    return box.RECORD.pack(kind.encode(), pair.encode(), vref, sensitivity, in_use)


TWO = record() + record("voltage", vref=0, sensitivity=0.0877) + record(pair="ssd", sensitivity=-0.0625)
TWO += record("voltage", "ssd", 0, 0.0877) + record("NA", "NA", 0, 0, False) * 4


def sets(levels, stamps, marked=(), sensors=range(8)):
    """Bytes of sets, by the text of the protocol; ``levels``: a row a set, a column a sensor."""
    out = bytearray()
    for row, (stamp, level) in enumerate(zip(stamps, levels, strict=True)):
        for sensor, mark, value in [(7, 1, stamp % 1024)] + [
            (k, row in marked and k == 0, level[k]) for k in sensors
        ]:
            out += bytes([0x80 | sensor << 4 | value >> 6, mark << 6 | value & 63])
    return bytes(out)


def made(count, seed=0, period=50, **fields):
    """Sets that can be told apart: levels of noise; and what a right reader makes of them."""
    levels = np.random.default_rng(seed).integers(0, 1024, (count, 8)).tolist()
    stamps = [700 + int(period * k) for k in range(count)]
    amps = [(3.3 * level[0] / 1023 - 1.65) / 0.12 for level in levels]
    return sets(levels, stamps, **fields), stamps, levels, amps


def fed(data, sizes, config=TWO):
    told = box.sensors(config)
    framing = Framing(box.forms(told), box.pairs(told))
    parts = []
    while data:
        size = next(sizes)
        parts.append(framing.feed(data[:size]))
        data = data[size:]
    return framing, Rows(
        *(np.concatenate([p[k] for p in parts]) for k in (0, 1)),
        np.concatenate([p.values for p in parts], axis=1),
    )


def sizes(seed):
    rng = random.Random(seed)
    while True:
        yield rng.choice([1, 3, 17, 400, 1601, 4095])


def ones():
    while True:
        yield 1


def test_the_configuration_is_read_and_pairs_get_names():
    told = box.sensors(TWO)
    assert [one.pair for one in box.pairs(told)[0:2] for one in (one.current,)] == ["gpu", "ssd"]
    assert told[2].sensitivity == pytest.approx(-0.0625)
    assert not told[5].in_use
    named = b"".join(record(pair=name) * 2 for name in ("PCIe 12V", "12V", "marks", "PCIe-12v"))
    assert [pair.stream for pair in box.pairs(box.sensors(named))] == [
        "pcie_12v",
        "pair_12v",
        "marks_2",
        "pcie_12v_3",
    ]
    assert [pair.name for pair in box.pairs(box.sensors(record(pair="") * 8))][2] == "pair 2"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (record(in_use=False) * 8, "expected a pair whose two sensors are in use"),
        ((record() + record(in_use=False)) * 4, "expected a pair whose two sensors are in use"),
        (record(sensitivity=0) * 8, "pair 0: expected the current sensor's reference and sensitivity"),
        (record() + record(vref=float("nan")) + record() * 6, "pair 0: expected the voltage sensor's"),
    ],
)
def test_a_configuration_that_cannot_be_measured_with_is_told(config, words):
    with pytest.raises(DeviceError, match=words):
        box.pairs(box.sensors(config))


def test_sets_come_out_byte_by_byte_as_they_went_in():
    data, stamps, levels, amps = made(400, marked={5, 390})
    framing, rows = fed(data, ones())
    assert rows.stamp.tolist() == [stamp % 1024 for stamp in stamps[:-1]]  # the last one waits
    np.testing.assert_allclose(rows.values[0], amps[:-1], atol=1e-5)
    inverted = [(3.3 * level[2] / 1023 - 1.65) / -0.0625 for level in levels[:-1]]
    np.testing.assert_allclose(rows.values[2], inverted, atol=1e-5)
    np.testing.assert_allclose(
        rows.values[3], [3.3 * level[3] / 1023 / 0.0877 for level in levels[:-1]], atol=1e-5
    )
    assert np.flatnonzero(rows.marked).tolist() == [5, 390]
    assert framing.beat == Beat(50.0, 1.5)
    assert (framing.thrown, framing.left_out) == (0, 0)


@pytest.mark.parametrize("period", [50, 48, 400 / 7])
def test_early_firmware_and_other_microcontrollers_are_found_out(period):
    data, _, _, amps = made(700, period=period, sensors=range(4))
    framing, rows = fed(data, sizes(1))
    assert len(rows.stamp) == 699
    assert framing.beat.period == pytest.approx(period, rel=1e-3)
    np.testing.assert_allclose(rows.values[0], amps[:-1], atol=1e-5)


def test_what_is_no_powersensor3_is_called_so():
    with pytest.raises(Transient, match="expected sets of 9 words, got 6"):
        fed(random.Random(1).randbytes(70_000), sizes(2))
    with pytest.raises(Transient, match="expected sets of 9 words"):  # nor what no longer is one
        fed(made(400)[0] + random.Random(1).randbytes(70_000), sizes(2))


def test_a_bad_start_is_passed_over():
    data, stamps, _, amps = made(900)
    harmed = b"".join(data[18 * k : 18 * k + 17] for k in range(300)) + data[18 * 300 :]
    framing, rows = fed(harmed, sizes(4))
    assert whole(rows, stamps, amps) == list(range(300, 899))
    assert framing.beat.jitter == 1.5


def whole(rows, stamps, amps, period=50):
    """Check that each row is one that was sent, in order; return which."""
    left = iter(range(len(stamps)))
    found = []
    for stamp, value in zip(rows.stamp.tolist(), rows.values[0].tolist(), strict=True):
        found.append(next(k for k in left if stamps[k] % 1024 == stamp and abs(amps[k] - value) < 1e-4))
    return found


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32), st.integers(HEAD * 18, 500 * 18),
    st.one_of(st.integers(1, 60), st.integers(1, 60).map(lambda n: 18 * n), st.integers(1, 2000)), st.integers(0, 2**32),
)  # fmt: skip
def test_after_lost_bytes_no_row_is_wrong_and_few_are_missing(seed, at, lost, cut):
    data, stamps, _, amps = made(700, seed)
    _, rows = fed(data[:at] + data[at + lost :], sizes(cut))
    kept = whole(rows, stamps, amps)
    assert kept[-1] == 698
    destroyed = set(range(at // 18, (at + lost - 1) // 18 + 1))
    missing = set(range(699)) - set(kept)
    assert missing <= destroyed | {min(destroyed) - 1, max(destroyed) + 1}


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32),
    st.integers(HEAD * 18, 500 * 18),
    st.binary(min_size=1, max_size=80),
    st.integers(0, 2**32),
)
def test_junk_costs_at_most_the_set_that_it_is_in_and_one_beside(seed, at, junk, cut):
    data, stamps, _, amps = made(700, seed)
    _, rows = fed(data[:at] + junk + data[at:], sizes(cut))
    missing = set(range(699)) - set(whole(rows, stamps, amps))
    assert missing <= {at // 18 - 1, at // 18, at // 18 + 1}
    assert len(missing) <= 2


def test_a_full_last_sensor_is_no_stop_marker():
    levels = [[0] * 7 + [1023]] * 400
    data = sets(levels, [50 * k for k in range(400)])
    assert b"\xff\x3f" in data
    assert len(fed(data, sizes(3))[1].stamp) == 399


def rows_of(ticks, marked=()):
    ticks = np.asarray(ticks)
    return Rows(ticks % 1024, np.isin(ticks, list(marked)), np.zeros((2, len(ticks)), np.float32))


def played(lost, at=1.0, rate=1.0, seconds=2.0, pauses=(), seed=7, most=10**6):
    """What a timeline makes of it where ``lost`` sets vanish; reads of at most ``most`` sets each
    4 ms, but none in ``pauses`` (start, end).
    """
    rng = np.random.default_rng(seed)
    ticks = 5000 + 50 * np.arange(int(seconds * 20_000) + lost)
    gone = int(at * 20_000)
    ticks = np.delete(ticks, np.arange(gone, gone + lost))
    came = ticks * 1000 / rate + 60e3 + np.minimum(rng.exponential(60e3, len(ticks)), 300e3)
    came = np.maximum.accumulate(came)
    timeline, pieces, start = Timeline(Beat(50.0, 1.5)), [], 0
    now = came[0]
    while start < len(ticks):
        now += 4e6 + rng.exponential(2e5)
        for begin, end in pauses:
            now = end * 1e9 if begin * 1e9 <= now < end * 1e9 else now
        stop = min(int(np.searchsorted(came, now)), start + most)
        pieces += timeline.take(rows_of(ticks[start:stop]), int(now))
        start = stop
    pieces += timeline.finish()
    got = np.concatenate([piece.tick for piece in pieces if isinstance(piece, Samples)])
    return [piece for piece in pieces if isinstance(piece, Gap)], got - got[0], ticks - ticks[0]


@pytest.mark.parametrize("lost", [1, 7, 19, 20, 21, 40, 41, 100, 511, 1000, 20_000])
@pytest.mark.parametrize("rate", [1.0, 1.00015, 0.99985])
def test_arrivals_tell_how_often_the_counter_went_round(lost, rate):
    gaps, got, true = played(lost, rate=rate)
    assert [gap.lost for gap in gaps] == [lost]
    assert np.array_equal(got, true)


def test_a_loss_that_the_counter_does_not_show_at_all_is_seen_by_arrivals():
    gaps, got, true = played(512)  # 25 times round, to the microsecond
    assert [gap.lost for gap in gaps] == [512]
    assert gaps[0].shortest == gaps[0].longest  # no other number of rounds looks like none
    assert got[-1] == true[-1]


def test_a_backlog_that_takes_long_to_come_is_no_loss():
    gaps, got, true = played(0, pauses=[(0.8, 1.1)], most=150)  # 80 sets come in the meantime
    assert gaps == []
    assert np.array_equal(got, true)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32), st.integers(0, 3000).filter(lambda n: n * 50 % 1024 not in {0, 1, 1023}), st.floats(0.3, 1.5),
    st.lists(st.tuples(st.floats(0.05, 1.9), st.floats(0.01, 0.3)), max_size=3), st.floats(0.99985, 1.00015),
)  # fmt: skip
def test_whatever_the_host_pauses_the_ticks_are_true_or_a_gap_says_between_what_they_are(
    seed, lost, at, pauses, rate
):
    spans = [(start, start + length) for start, length in pauses]
    gaps, got, true = played(lost, at, rate, 2.2, spans, seed)
    assert len(gaps) == (lost > 0)
    for gap in gaps:
        assert gap.shortest <= lost <= gap.longest
        assert gap.shortest == gap.longest or f"or {gap.shortest} to {gap.longest}" in gap.reason
        if gap.shortest == gap.longest:
            assert np.array_equal(got, true)
    if not gaps:
        assert np.array_equal(got, true)


def lost_twice(period, lost, late_ns):
    """Gaps where sets are lost twice within 30 ms, with three arrivals between, all of them late."""
    timeline, gaps, stamps = Timeline(Beat(period, 1.5)), [], np.floor(period * np.arange(40_000)).astype(int)
    for k in range(200):
        rows = stamps[200 * k + (lost if k in {100, 103} else 0) : 200 * k + 200]
        pieces = list(
            timeline.take(rows_of(rows), int(rows[-1]) * 1000 + (late_ns if k in {100, 101, 102} else 0))
        )
        gaps += [piece for piece in pieces if isinstance(piece, Gap)]
    return gaps


def test_losses_that_follow_each_other_closely_are_told_by_the_beat():
    assert lost_twice(50.0, 3, 5_000_000) == [
        Gap(1_000_000 - 50, 1_000_150, 3, 3, 3),
        Gap(1_030_000 - 50, 1_030_150, 3, 3, 3),
    ]


def test_where_every_round_is_on_the_beat_both_lengths_are_named():
    first, second = lost_twice(51.2, 10, 5_000_000)  # 20 sets are 1.024 ms
    assert (first.lost, first.shortest) == (10, 10)
    assert first.longest == 10 + 5 * 20  # 5 ms late, or five rounds lost
    assert "10 sets lost, or 10 to 110: the counter of 1.024 ms went round unseen" in first.reason
    assert second.shortest <= 10 <= second.longest


def test_a_mark_has_the_tick_of_its_row_and_the_time_it_was_asked_for():
    timeline, pieces = Timeline(Beat(50.0, 1.5)), []
    ticks = 300 + 50 * np.arange(40_000)
    for k in range(200):
        rows = ticks[200 * k : 200 * k + 200]
        marked, sent = (
            ((int(rows[77]),), 123)
            if k == 100
            else ((int(rows[3]), int(rows[9])), None)
            if k == 150
            else ((), None)
        )
        pieces += timeline.take(rows_of(rows, marked), int(rows[-1]) * 1000, sent)
    marks = [piece for piece in pieces if isinstance(piece, Marked)]
    assert [(mark.tick, mark.sent) for mark in marks] == [
        (int(ticks[20_077]), 123), (int(ticks[30_003]), None), (int(ticks[30_009]), None),
    ]  # fmt: skip
    assert marks[0].arrival == int(ticks[20_199]) * 1000
    assert all(piece.at >= piece.tick * 1000 for piece in pieces if isinstance(piece, Shown))

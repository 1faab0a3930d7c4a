"""The Otii collector: its pure parts with every harm, the whole against the server that Qoitech's client has proved."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.analysis.clocks import fit
from melt_stream.collectors._otii_link import Link, Messages
from melt_stream.collectors._otii_recording import Channel, Hole, Pairing, Run, analog, entries
from melt_stream.collectors._serial import Block
from melt_stream.collectors.otii import Otii
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from melt_stream.testing import Keep
from tests.collectors.collecting import collecting
from tests.emulators.playing_otii import playing


def made(place, **fields) -> Otii:
    return configure(Otii, {"volts": 3.7, "address": f"{place['host']}:{place['tcp_port']}", **fields}, "it")


@settings(deadline=None)
@given(st.integers(1, 50))
def test_messages_however_they_are_cut(size):
    sent = [{"type": "response", "data": {"values": list(range(k))}, "text": "é\r\n"} for k in range(20)]
    data = b"".join(json.dumps(message).encode() + b"\r\n" for message in sent)
    messages = Messages()
    got = [one for k in range(0, len(data), size) for one in messages.feed(data[k : k + size])]
    assert got == sent


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_junk_is_transient_and_nothing_else(pieces):
    messages = Messages()
    with suppress(Transient):
        for piece in pieces:
            assert all(isinstance(message["type"], str) for message in messages.feed(piece))


@pytest.mark.parametrize(
    "harm",
    [
        {"values": None}, {"values": {}}, {"values": ["1"]}, {"values": [[1.0]]}, {"values": [True]}, {"values": [10**400]},
        {"timestamp": None}, {"timestamp": "1"}, {"timestamp": 1e300}, {"interval": 0}, {"interval": -1}, {"interval": None},
    ],
)  # fmt: skip
def test_a_reply_that_holds_no_samples_is_refused(harm):
    good = {"timestamp": 1.5, "interval": 0.00025, "values": [0.1, 2, 1e-9]}
    assert analog(good, "mc").tick == 1_500_000_000
    with pytest.raises(DeviceError, match="Otii, mc: expected timestamp, interval and values as numbers"):
        analog(good | harm, "mc")


@pytest.mark.parametrize(
    "values", [None, [1], [{"timestamp": 1}], [{"value": True}], [{"timestamp": 1, "value": "x"}]]
)
def test_a_digital_reply_that_is_none_is_refused(values):
    with pytest.raises(DeviceError, match="expected values with timestamp and bool"):
        entries({"values": values}, bool, "i1")


def test_half_a_surrogate_pair_in_a_line_is_replaced():
    assert entries(json.loads('{"values": [{"timestamp": 1, "value": "\\ud800!"}]}'), str, "rx") == [
        (10**9, "?!")
    ]


class Played:
    """A connection on which these messages come, one a block."""

    address = "it"

    def __init__(self, *said) -> None:
        self.said, self.sent = list(said), []

    async def send(self, data):
        await trio.lowlevel.checkpoint()
        self.sent.append(json.loads(data))

    async def receive(self):
        if not self.said:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return Block(json.dumps(self.said.pop(0)).encode() + b"\r\n", 7)


def answer(number, **data):
    return {"type": "response", "cmd": "x", "trans_id": str(number), "data": data}


async def test_an_answer_to_what_was_given_up_is_passed_over_and_a_strangers_is_none(autojump_clock):
    link = Link(wire := Played())
    with pytest.raises(Transient, match="expected an answer to x within 3 s, got none"):
        await link.ask("x")
    progress = {"type": "progress", "cmd": "x", "trans_id": "2", "progress_value": 0.5}
    wire.said = [{"type": "information", "info": "hello"}, answer(1, n=1), progress, answer(2, n=2)]
    assert await link.ask("x", a=1) == ({"n": 2}, 7)
    assert wire.sent[1] == {"type": "request", "cmd": "x", "trans_id": "2", "data": {"a": 1}}
    wire.said = [answer(1)]
    with pytest.raises(
        Transient, match="expected the answer to x with trans_id '3', got response 'x' with '1'"
    ):
        await link.ask("x")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("Device not connected", Transient), ("Invalid key value", DeviceError), ("No license", DeviceError)],
)
async def test_a_refusal_says_so_in_the_servers_words(code, kind):
    refusal = {"type": "error", "errorcode": code, "trans_id": "1", "data": {"message": "because"}}
    with pytest.raises(kind, match=rf"Otii, x: got '{code}' \(because\)") as refused:
        await Link(Played(refusal)).ask("x")
    assert isinstance(refused.value, Transient) == (kind is Transient)


async def test_a_field_of_another_type_is_refused():
    got = await Link(Played(answer(1, count=True, other=1.5))).ask("x")
    for key in ("count", "other", "none"):
        with pytest.raises(DeviceError, match=f"Otii, x: expected '{key}' to be int, got"):
            got.get(key, int, "x")
    assert got.get("other", (int, float), "x") == 1.5


class Recorded:
    """A server with one recording: samples at these numbers, 4 kHz. It answers as many as asked, over holes too."""

    def __init__(self, numbers) -> None:
        self.numbers, self.asked = np.asarray(numbers), 0

    async def ask(self, _, index=0, count=0, **__):
        self.asked += 1
        await trio.lowlevel.checkpoint()
        numbers = self.numbers[index : index + count]
        values = {"timestamp": numbers[0] * 0.00025, "interval": 0.00025, "values": numbers.tolist()}
        return type("Answer", (), {"data": values})


@settings(deadline=None)
@given(st.sets(st.integers(1, 20_000), max_size=6), st.integers(1, 500))
def test_holes_are_found_to_the_sample_wherever_they_are(at, length):
    kept = np.setdiff1d(np.arange(20_600), [k for first in at for k in range(first, first + length)])

    async def follow():
        channel, pieces = Channel(Recorded(kept), "Arc", 1, "mc"), []
        for count in (len(kept) // 3, len(kept)):
            while channel.index < count:
                pieces += await channel.samples(count)
        return pieces

    pieces = trio.run(follow)
    ticks = np.concatenate([piece.ticks(250_000.0) for piece in pieces if isinstance(piece, Run)])
    assert np.array_equal(ticks, kept * 250_000)
    assert np.array_equal(np.concatenate([piece.values for piece in pieces if isinstance(piece, Run)]), kept)
    holes = [
        (hole.start // 250_000, hole.stop // 250_000, hole.lost) for hole in pieces if isinstance(hole, Hole)
    ]
    steps = np.flatnonzero(np.diff(kept) > 1)
    assert holes == [(kept[k], kept[k + 1], kept[k + 1] - kept[k] - 1) for k in steps]


def test_a_hole_costs_no_more_than_halving():
    server = Recorded(np.r_[0:30_000, 30_040:39_000])

    async def follow():
        await Channel(server, "Arc", 1, "mc").samples(len(server.numbers))

    trio.run(follow)
    assert server.asked <= 2 + 16 + 2


def test_a_voltage_is_the_nearest_ones_mean_and_unknown_in_a_hole():
    pairing = Pairing(period=4.0)
    pairing.voltage(np.arange(0, 40, 4), np.arange(0.0, 40, 4))
    pairing.current(np.arange(0, 60), np.ones(60))
    ticks, _, volts = pairing.take()
    assert np.array_equal(ticks, np.arange(37))
    assert np.array_equal(volts, ticks)
    pairing.voltage(np.arange(56, 70, 4), np.arange(56.0, 70, 4))
    ticks, _, volts = pairing.take()
    assert np.array_equal(ticks, np.arange(37, 60))
    assert np.array_equal(volts[:4], [36.0] * 4)
    assert np.isnan(volts[4:15]).all()
    assert np.array_equal(volts[15:19], [56.0] * 4)
    assert np.array_equal(volts[19:], [56.0, 57, 58, 59][: len(volts[19:])])
    pairing.current(np.arange(60, 80), np.ones(20))
    assert np.array_equal(pairing.take()[0], np.arange(60, 69))
    assert pairing.behind == 10
    ticks, _, volts = pairing.take(last=True)  # what is too far from a voltage is not written
    assert np.array_equal(ticks, np.arange(69, 73))
    assert np.array_equal(volts, [68.0] * 4)
    assert not len(Pairing().take(last=True)[0])


def rows(watched):
    """How many there are; ``of`` would make dicts of all of them, on the loop that everybody waits for."""
    return sum(batch.data.num_rows for batch in watched.batches if batch.source.key == "it.main")


def right(watched, server, recording=0):
    """Hold every reading to what the load drew at that sample."""
    table = watched.table("it.main")
    first = table["epoch"].to_numpy() == min(table["epoch"].to_pylist()) + recording
    tick, amps, volts = (table[name].to_numpy()[first] for name in ("tick", "amps", "volts"))
    made = server.recordings[recording]
    seconds = (made.host(tick / 1e9) - server.began) / 1e9
    assert np.array_equal(tick % 250_000, np.zeros(len(tick)))
    np.testing.assert_allclose(amps, server.load.amps(seconds, 3.7), rtol=1e-5)
    assert set(volts.tolist()) == {np.float32(3.7)}
    return tick


async def test_currents_voltages_inputs_lines_and_the_clock():
    async with playing("rate:150", load="ramp:0W,4W,2s", progress=True) as (server, place):
        other = made(place, channels=["i1", "i2", "rx", "tp"], io_volts=3.3, max_current=1.0, power_off=True)
        async with collecting(other) as watched:
            await watched.until(lambda: rows(watched))
            soon = server.seconds() + 0.1
            server.gpi += [(soon, 1, True), (soon + 0.05, 1, False), (soon + 0.1, 2, True)]
            server.uart += [(soon + 0.2, "booting")]
            await watched.until(lambda: watched.of("uart") and rows(watched) > 2500)
    tick = right(watched, server)
    assert np.array_equal(tick, np.arange(len(tick)) * 250_000)
    assert watched.gaps() == []
    (recording,) = server.recordings

    def shown(seconds):
        tick = (seconds * 1e9 + server.began - recording.began) * recording.pace
        return pytest.approx(tick, abs=2)

    first, second = ([(row["tick"], row["level"]) for row in watched.of(name)] for name in ("gpi1", "gpi2"))
    assert first == [(shown(soon), True), (shown(soon + 0.05), False)]
    assert second == [(shown(soon + 0.1), True)]
    (line,) = watched.of("uart")
    assert (line["kind"], line["text"], line["tick"]) == ("mark", "booting", shown(soon + 0.2))
    assert {row["celsius"] for row in watched.of("tp")} == {31.5}
    (rail,) = watched.rows("run.rails")
    assert (rail["boundary"], rail["kind"], rail["sample_period_ns"]) == ("battery", "gauge", 250_000)
    assert rail["gain"] == pytest.approx(0.001 / 3**0.5)
    assert (server.max_amps, server.powered, recording.ended is None) == (1.0, False, False)


async def test_the_clock_of_a_recording_holds():
    async with playing("rate:150") as (server, place), collecting(made(place)) as watched:
        await watched.until(lambda: rows(watched) > 2500)
    (recording,) = server.recordings
    readings = [row for row in watched.rows("run.readings") if row["clock_of"] == "it.recording"]
    assert {row["kind"] for row in readings} == {"cause", "arrival"}
    for row in readings:
        truth = float(recording.host(np.array([row["count"] / 1e9]))[0])
        assert (row["not_before"] or 0) <= truth <= (row["not_after"] or 1 << 63)
    clocks = {row["clock"]: row for row in fit(watched.table("run.readings")).table().to_pylist()}
    clock = clocks["it.recording"]
    assert abs(clock["drift_ppm"] + 150) <= clock["drift_bound_ppm"]


@pytest.mark.parametrize(
    ("fault", "lost"), [("skip@0.3:40", 40), ("skip@0.3:2000", 2000), ("stall@0.3:0.25", 1000)]
)
async def test_a_hole_is_a_gap_of_its_true_length_and_no_reading_is_wrong(fault, lost):
    async with playing(fault, load="ramp:0W,4W,20s") as (server, place), collecting(made(place)) as watched:
        await watched.until(lambda: watched.gaps("main") and rows(watched) > 2500)
    (gap,) = watched.gaps("main")
    assert gap["lost_rows"] == pytest.approx(lost, abs=1)
    tick = right(watched, server)
    (jump,) = np.flatnonzero(np.diff(tick) != 250_000)
    assert (gap["start"], gap["stop"]) == (tick[jump], tick[jump + 1])
    (done,) = server.faults.done
    assert tick[jump] == pytest.approx(done.seconds * 1e9, abs=250_000)
    (slow,) = watched.gaps("mv")
    assert slow["lost_rows"] == pytest.approx(lost / 4, abs=1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("disconnect@0.3", ": expected (bytes|to send), got "),
        ("junk@0.3:16", "expected a JSON object"),
        ("ended@0.3", "expected the recording to go on, got its end; did somebody"),
        ("stall@0.3:60", "expected samples within 1 s, got none; is the device"),
    ],
)
async def test_what_breaks_off_is_a_new_recording_and_a_new_epoch(fault, said):
    async with playing(fault, load="ramp:0W,4W,20s") as (server, place), collecting(made(place)) as watched:
        await watched.until(lambda: 1 in watched.column("it.main", "epoch")[-1:])
    (gap,) = watched.gaps("main")
    assert re.search(said, gap["reason"])
    assert len(server.recordings) == 2
    assert server.recordings[0].ended is not None
    for recording in (0, 1):
        tick = right(watched, server, recording)
        assert np.array_equal(tick, np.arange(len(tick)) * 250_000)
    causes = [row["epoch_of"] for row in watched.rows("run.readings") if row["kind"] == "cause"]
    assert causes == [0, 1]


async def test_currents_without_voltages_are_not_waited_with_for_ever():
    async with playing(volts_hz=0.5) as (_, place), collecting(made(place)) as watched:
        await watched.until(lambda: 1 in watched.column("it.main", "epoch"))
    assert "expected voltages beside the currents, got none for 1 s" in watched.gaps("main")[0]["reason"]


async def test_a_server_that_goes_away_and_one_that_is_not_there():
    async with playing("unplug@0.2") as (_, place):
        ending = await record({"it": made(place)}, [keep := Keep()], seconds=1.0)
    assert ending.reason == "time limit"
    assert re.search(": expected (bytes|to send), got ", keep.rows("run.gaps")[0]["reason"])
    with pytest.RaisesGroup(pytest.RaisesExc(Transient, match="expected a TCP server"), allow_unwrapped=True):
        await made(place).collect(Hub().outlet("it"))


async def refused(place, **fields):
    ending = await record({"it": made(place, **fields)}, [Keep()], seconds=2.0)
    return ending.error


async def test_what_it_cannot_give_is_refused():
    async with playing(most_volts=3.75) as (server, place):
        assert "expected 0.5 to 5 V, which an Arc can give, got 5.5 V" in str(await refused(place, volts=5.5))
        assert "arc_set_main_voltage: got 'Invalid key value'" in str(await refused(place, volts=4.2))
        assert "arc_set_channel_samplerate: got 'Invalid command'" in str(await refused(place, hz=50_000))
    assert server.recordings == []
    assert not server.powered


async def test_somebody_elses_recording_is_left_alone():
    async with playing() as (server, place), collecting(made(place)) as watched:
        await watched.until(lambda: rows(watched))
        error = await refused(place)
        assert "expected no recording to run, got 'Recording 1' of somebody else's" in str(error)
        count = rows(watched)
        await watched.until(lambda: rows(watched) > count)
        assert len(server.recordings) == 1
        assert watched.gaps() == []


@pytest.mark.parametrize(("licence", "is_old"), [("free", False), ("none", False), ("none", True)])
async def test_a_licence_is_reserved_where_there_are_any_and_given_back(licence, is_old):
    async with playing(licence=licence, is_old=is_old) as (server, place), collecting(made(place)) as watched:
        await watched.until(lambda: rows(watched))
        assert server.reserved == (licence == "free")
    assert not server.reserved


async def test_a_licence_that_is_taken_is_said_to_be_needed():
    async with playing(licence="taken") as (_, place):
        error = await refused(place)
    assert (
        "got 'No license' (a licence for automation is needed); log in in the Otii application and reserve"
        in str(error)
    )


async def test_a_device_that_is_not_there_and_one_of_another_name():
    async with playing() as (server, place):
        assert made(place).check().ok
        server.connected = False
        with pytest.RaisesGroup(
            pytest.RaisesExc(Transient, match="expected one Arc or Ace, got none"),
            flatten_subgroups=True,
            allow_unwrapped=True,
        ):
            await made(place).collect(Hub().outlet("it"))
        server.connected = True
        with pytest.RaisesGroup(
            pytest.RaisesExc(Transient, match=r"expected a device 'Ace', got Arc I \(Arc Arc5"),
            flatten_subgroups=True,
            allow_unwrapped=True,
        ):
            await made(place, device="Ace").collect(Hub().outlet("it"))
    assert not made(place).check().ok


async def test_another_server_is_not_taken_for_one():
    async def talk(stream):
        await stream.send_all(b'{"type": "information", "info": "hello"}\r\n')

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, talk, 0, host="127.0.0.1"))
        place = {"host": "127.0.0.1", "tcp_port": listener.socket.getsockname()[1]}
        assert "expected an Otii server's greeting" in str(await refused(place))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "expected 'volts', got none"),
        ({"volts": 0.2}, "volts"),
        ({"volts": 26}, "volts"),
        ({"volts": 3.7, "channels": ["xx"]}, "channels"),
        (
            {"volts": 3.7, "channels": ["i1", "rx"]},
            r"io_volts: expected the level of the expansion port in V, since \['i1', 'rx'\]",
        ),
        ({"volts": 3.7, "address": "a:b"}, "expected HOST:PORT"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_starts(fields, said):
    with pytest.raises(ConfigError, match=said):
        configure(Otii, fields, "it")

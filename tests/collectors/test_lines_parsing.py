"""Text to records: byte by byte, with losses, with junk; and a device's time that wraps, restarts and is garbled."""

import json
from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.clock import Clock
from melt_stream.collectors._described import ColumnSpec, Described, RailSpec, specs
from melt_stream.collectors._device_time import Timeline
from melt_stream.collectors._lines import Cutter, Junk, Layout, Reader
from melt_stream.errors import ConfigError
from melt_stream.units import A, V, W

INA = specs({"millis": "ms", "volts": "V", "amps": "mA"})


def read(layout: Layout, text: str) -> list[object]:
    reader = Reader(layout)
    found = [reader.take(line) for line in Cutter().feed(text.encode())]
    return [one if not isinstance(one, Junk) else one.reason for one in found if one is not None]


def values(layout: Layout, text: str) -> list[dict[str, object]]:
    found = read(layout, text)
    assert all(isinstance(one, dict) for one in found), found
    return found


def nmea(body: str) -> str:
    return f"${body}*{reduce(xor, body.encode(), 0):02X}"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n\n"])
def test_columns_become_base_units(end):
    assert values(Layout(INA), f"10,5.02,400{end}20, 5.0 ,-3.5e1{end}") == [
        {"millis": 0.01, "volts": 5.02, "amps": pytest.approx(0.4)},
        {"millis": 0.02, "volts": 5.0, "amps": pytest.approx(-0.035)},
    ]


@pytest.mark.parametrize("word", ["", "nan", "OVF", "null", "-"])
def test_what_the_sensor_does_not_know_is_null_and_not_zero(word):
    assert values(Layout(INA), f"10,{word},1\n")[0]["volts"] is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("10,5.02", "expected 3 columns, got 2"),
        ("10,5.02,400,7", "expected 3 columns, got 4"),
        ("10,5.0.2,400", "expected a number, got '5.0.2'"),
        ("10,5,02x", "expected a unit"),
        ("10,5 A,1", "expected a unit that makes V, got 'A'"),
        ("10,1e999,1", "finite"),
        ("10,\x00\x01,1", "expected a number"),
    ],
)
def test_a_line_that_does_not_fit_is_junk(line, said):
    (reason,) = read(Layout(INA), line + "\n")
    assert said in str(reason)


def test_what_is_out_of_range_is_junk():
    layout = Layout(specs({"volts": ColumnSpec("mV", least=4000, most=6000)}))
    assert values(layout, "5020\n5.5 V\n") == [{"volts": pytest.approx(5.02)}, {"volts": 5.5}]
    assert "out of the range" in str(read(layout, "502\n")[0])


def test_a_header_names_the_columns_and_may_come_again_in_another_order():
    layout = Layout(specs({"volts": "V", "amps": ColumnSpec("mA", key="I [mA]")}), header=True, comment="#")
    text = "boot 1.0\n# hello\nt;volts\nt,volts,I [mA]\n1,5,100\nI [mA],t,volts\n200,2,6\n"
    assert values(layout, text) == [{"volts": 5.0, "amps": 0.1}, {"volts": 6.0, "amps": 0.2}]


def test_blanks_tabs_semicolons_quotes_and_decimal_commas():
    assert values(Layout(INA, delimiter=" "), " 10 \t5.0   1\n")[0]["volts"] == 5.0
    assert values(Layout(INA, delimiter="\t"), "10\t\t1\n")[0]["volts"] is None
    assert values(Layout(INA, delimiter=";", decimal=","), "10;5,02;1\n")[0]["volts"] == 5.02
    assert values(Layout(INA), '"10","5.5","1"\n')[0]["volts"] == 5.5


def test_pairs_with_units_of_their_own():
    layout = Layout(specs({"volts": ColumnSpec("V", key="Bus Voltage"), "amps": "A"}), format="pairs")
    assert values(layout, "Bus Voltage:   4980 mV, amps = 0.25 A, other=x\n") == [
        {"volts": 4.98, "amps": 0.25}
    ]
    assert values(layout, "amps=12\u00b5A, Bus Voltage=5\n")[0]["amps"] == pytest.approx(12e-6)
    assert "twice" in str(read(layout, "amps=1, amps=2, Bus Voltage=5\n")[0])
    assert "expected Bus Voltage" in str(read(layout, "amps=1\n")[0])


RECORD = Layout(
    specs(
        {"volts": ColumnSpec("V", key="Bus Voltage"), "shunt": "mV", "amps": ColumnSpec("mA", key="Current")}
    ),
    format="pairs",
    start="Bus Voltage",
)
ONE = "Bus Voltage: 5 V\nshunt: 1 mV\nCurrent: 10 mA\n\n"


def test_a_record_of_several_lines_ends_with_its_last_needed_line():
    assert (
        values(RECORD, "----\n" + ONE + "note: hello\n" + ONE)
        == [{"volts": 5.0, "shunt": 0.001, "amps": 0.01}] * 2
    )


@pytest.mark.parametrize("missing", range(3))
def test_records_never_mix_when_a_line_is_lost(missing):
    lines = ONE.strip().replace("5 V", "6 V").replace("1 mV", "2 mV").splitlines()
    del lines[missing]
    found = read(RECORD, ONE + "\n".join(lines) + "\n" + ONE)
    good = [one for one in found if isinstance(one, dict)]
    assert good == [{"volts": 5.0, "shunt": 0.001, "amps": 0.01}] * 2
    assert len(found) > 2


def test_json_lines_with_nested_objects():
    layout = Layout(
        specs(
            {"volts": ColumnSpec("mV", key="bus.v"), "amps": ColumnSpec("A", optional=True), "state": "text"}
        ),
        format="json",
    )
    assert values(layout, '{"bus": {"v": 5000}, "amps": NaN, "state": "on", "list": [1]}\n') == [
        {"volts": 5.0, "amps": None, "state": "on"}
    ]
    assert values(layout, '{"bus": {"v": "5 V"}, "state": "on"}\n')[0]["volts"] == 5.0
    for bad in (
        '{"bus": {"v": true}, "state": ""}',
        "[1]",
        '{"bus":',
        "[" * 3000,
        '{"bus": {"v": [1]}, "state": 1}',
    ):
        assert isinstance(read(layout, bad + "\n")[0], str)


def test_the_checksum_is_checked():
    layout = Layout(INA, checksum="nmea")
    assert values(layout, nmea("10,5.02,400") + "\n")[0]["volts"] == 5.02
    for bad in ("10,5.02,400", nmea("10,5.02,400")[:-1] + "?", nmea("10,5.02,400").replace("5.02", "5.03")):
        assert "expected ...*" in str(read(layout, bad + "\n")[0])


def test_one_lost_byte_anywhere_never_gives_a_wrong_record_under_a_checksum():
    layout, line = Layout(INA, checksum="nmea"), nmea("1234,5.02,400.25")
    for at in range(len(line)):
        for found in read(layout, f"{line[:at]}{line[at + 1 :]}\n"):
            # The leading $ is not part of the sum: without it the record is still whole.
            assert isinstance(found, str) or found == values(layout, line + "\n")[0]


TEXT = "".join(nmea(f"{10 * k},5.0{k % 10},{400 + k}") + "\r\n" for k in range(20)).encode()


@given(st.lists(st.integers(0, len(TEXT)), max_size=30))
def test_how_the_bytes_are_cut_does_not_matter(cuts):
    whole = list(Cutter(64).feed(TEXT))
    cutter, pieces, at = Cutter(64), [], 0
    for cut in [*sorted(cuts), len(TEXT)]:
        pieces += cutter.feed(TEXT[at:cut])
        at = cut
    assert pieces == whole
    byte_wise = Cutter(64)
    assert [line for k in range(len(TEXT)) for line in byte_wise.feed(TEXT[k : k + 1])] == whole


def after(at: int, lost: int, junk: bytes = b"") -> tuple[list, list]:
    """The records of a text with a hole or junk in it: those that were sent, and those that were not."""
    layout = Layout(INA, checksum="nmea")
    sent = [Reader(layout).take(line) for line in Cutter().feed(TEXT)]
    reader = Reader(layout)
    found = [reader.take(line) for line in Cutter().feed(TEXT[:at] + junk + TEXT[at + lost :])]
    good = [one for one in found if isinstance(one, dict)]
    return [one for one in good if one in sent], [one for one in good if one not in sent]


@given(st.integers(0, len(TEXT)), st.integers(0, 60), st.binary(max_size=60))
def test_after_loss_and_junk_every_record_that_was_sent_whole_is_there(at, lost, junk):
    sent, strange = after(at, lost, junk)
    assert len(sent) >= 20 - 2 - lost // 10 - junk.count(b"\n") - junk.count(b"\r")
    assert len(strange) <= 1 + junk.count(b"\n") + junk.count(b"\r")  # made of the halves of two


def test_two_halves_of_lines_rarely_pass_for_a_record():
    """NMEA's checksum has 8 bits: the halves that a loss puts together are refused but for that chance."""
    holes = [(at, lost) for at in range(0, len(TEXT) - 60, 3) for lost in range(1, 60, 2)]
    strange = sum(len(after(at, lost)[1]) for at, lost in holes)
    assert strange < 3 * len(holes) / 256


@given(st.binary(max_size=400), st.sampled_from(["columns", "pairs", "json"]))
def test_junk_alone_never_raises(junk, form):
    reader = Reader(Layout(INA, format=form))
    for line in Cutter(100).feed(junk):
        reader.take(line)


def test_a_line_without_an_end_takes_no_more_than_its_limit():
    cutter = Cutter(100)
    for _ in range(1000):
        assert list(cutter.feed(b"x" * 999)) == []
        assert len(cutter._rest) <= 100
    assert list(cutter.feed(b"\n1,2,3\n")) == [None, b"1,2,3"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": {}}, "expected at least one"),
        ({"columns": INA, "decimal": ","}, "expected another character"),
        ({"columns": INA, "start": "volts"}, "format = 'pairs'"),
        ({"columns": INA, "format": "json", "header": True}, "format = 'columns'"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        Layout(**fields)


def test_a_rail_is_a_stream_and_the_rest_is_values():
    columns = specs(
        {"bus": "V", "one": "mA", "two": "mA", "celsius": "\u00b0C", "state": "text", "junk": "-"}
    )
    rails = {
        "first": RailSpec("rail", volts="bus", amps="one", gain=0.01),
        "second": RailSpec("rail", "mean", volts=3.3, amps="two"),
    }
    described = Described(columns, rails, Clock("device", tick_ns=1e6))
    assert {name: [column for column, _ in one.columns] for name, one in described.streams.items()} == {
        "first": ["volts", "amps"], "second": ["volts", "amps"], "values": ["celsius", "state"],
    }  # fmt: skip
    rows = dict(described.rows({"bus": 5.0, "one": 0.1, "two": 0.2, "celsius": None, "state": "on"}))
    assert rows[described.streams["second"]] == {"volts": 3.3, "amps": 0.2}
    assert rows[described.streams["first"]] == {"volts": 5.0, "amps": 0.1}
    (_, first), (_, second) = described.declared()
    assert (first.gain, first.kind, first.instrument, second.kind) == (0.01, "gauge", "meter", "mean")


@pytest.mark.parametrize(
    ("columns", "rail", "said"),
    [
        ({"volts": "V"}, RailSpec("board"), "needs watts or amps and volts"),
        ({"volts": "mA", "amps": "A"}, RailSpec("board"), "rails.it.volts: expected a column in V"),
        ({"watts": "W"}, RailSpec("board", watts="power"), "no such column"),
        ({"watts": "W"}, RailSpec("board", "counter"), "needs energy or charge"),
        ({"watts": "Watt"}, RailSpec("board"), "expected a unit made of W"),
        ({"Volts": "V"}, RailSpec("board"), "expected names"),
    ],
)
def test_a_rail_that_has_no_power_is_refused(columns, rail, said):
    with pytest.raises(ConfigError, match=said):
        Described(specs(columns), {"it": rail})


def test_energy_and_charge_are_counted_in_joules_and_coulombs():
    columns = specs({"energy": "mWh", "charge": "mAh", "volts": "V"})
    described = Described(columns, {"it": RailSpec("board", "counter")})
    assert dict(described.streams["it"].columns).keys() == {"volts", "energy", "charge"}
    found = values(Layout(columns), "10,2,5\n")[0]
    assert found == {"energy": pytest.approx(36.0), "charge": pytest.approx(7.2), "volts": 5.0}
    assert (V.code, A.code, W.code) == ("V", "A", "W")


MS = 1_000_000


def line_of(timeline: Timeline[int], counts, host=None):
    found = []
    for k, count in enumerate(counts):
        arrival = (host[k] if host else k * 10) * MS
        found += [(one.epoch, one.tick, one.record) for one in timeline.take(count, arrival, k)]
    return found


def test_a_wrap_is_undone():
    wrap = 1 << 32
    counts = [(wrap - 20 + 10 * k) % wrap for k in range(5)]
    assert line_of(Timeline(1e6, wrap), counts) == [(0, wrap - 20 + 10 * k, k) for k in range(5)]


def test_wraps_in_a_long_silence_are_counted_by_the_host():
    micros = Timeline[int](1e3, 1 << 32)
    lap = (1 << 32) * 1000
    first = micros.take(5, 0, 0)
    (again,) = micros.take(1005, 2 * lap + MS, 1)
    assert (first[0].tick, again.tick) == (5, 1005 + 2 * (1 << 32))


def test_a_restart_begins_an_epoch_and_loses_nothing():
    counts = [50_000, 50_010, 50_020, 0, 10, 20]
    for wrap in (1 << 32, None):
        assert line_of(Timeline(1e6, wrap), counts) == [
            (0, 50_000, 0), (0, 50_010, 1), (0, 50_020, 2), (1, 0, 3), (1, 10, 4), (1, 20, 5)
        ]  # fmt: skip


@pytest.mark.parametrize("wrong", [1, 5, 500_200, 99_999_999, 1 << 40])
def test_a_garbled_time_is_thrown_away(wrong):
    timeline = Timeline[int](1e6, 1 << 32)
    assert [tick for _, tick, _ in line_of(timeline, [50_000, 50_010, wrong, 50_030])] == [
        50_000,
        50_010,
        50_030,
    ]
    assert timeline.garbled == 1
    assert timeline.epoch == 0


def test_a_host_that_stalls_and_then_reads_all_at_once_is_no_restart():
    counts = [10 * k for k in range(600)]
    host = [10 * k if k < 10 else max(5000, 10 * k) for k in range(600)]
    found = line_of(Timeline(1e6, 1 << 32), counts, host)
    assert [tick for _, tick, _ in found] == counts
    assert {epoch for epoch, _, _ in found} == {0}


def test_one_that_counts_in_64_bits_is_believed():
    start = 1 << 40
    assert [tick for _, tick, _ in line_of(Timeline(1e3, 1 << 32), [start, start + 10_000])] == [
        start, start + 10_000
    ]  # fmt: skip


@given(st.lists(st.integers(0, 1 << 33), max_size=30))
def test_ticks_never_decrease_within_an_epoch(counts):
    found = line_of(Timeline(1e6, 1 << 32), counts)
    assert found == sorted(found, key=lambda one: (one[0], one[1]))
    assert len({record for _, _, record in found}) == len(found)
    assert json.dumps(found)

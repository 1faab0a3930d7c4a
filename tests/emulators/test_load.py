"""Loads and faults are read from small texts, and refused with a word that helps."""

from __future__ import annotations

import fcntl
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from melt_stream.emulators import Faults, Load
from melt_stream.errors import ConfigError

pytestmark = pytest.mark.realtime

T = np.array([0.0, 0.3, 0.6, 1.1])


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("constant:1500mW", [1.5, 1.5, 1.5, 1.5]),
        ("constant:0.5A", [2, 2, 2, 2]),
        ("square:0.5W,4W,1s", [0.5, 0.5, 4, 0.5]),
        ("ramp:0W,4W,1000ms", [0, 1.2, 2.4, 0.4]),
    ],
)
def test_patterns(text, watts):
    assert Load.parse(text).watts(T, 4.0) == pytest.approx(watts)


def test_nothing_flows_where_the_supply_is_off():
    assert Load.parse("constant:1W").amps(T, 0.0).tolist() == [0] * 4


def test_files(tmp_path):
    (tmp_path / "w.csv").write_text("t,watts\n0,1\n1,3\n")
    assert Load.parse(str(tmp_path / "w.csv")).watts(T, 4.0) == pytest.approx([1, 1.6, 2.2, 1.2])
    parquet.write_table(
        pa.table({"t": [5.0, 6.0], "volts": [4.0, 4.0], "amps": [1.0, 2.0]}), tmp_path / "va.parquet"
    )
    assert Load.parse(str(tmp_path / "va.parquet")).watts(T, 5.0) == pytest.approx([4, 5.2, 6.4, 4.4])
    (tmp_path / "a.csv").write_text("t,amps\n0,1\n2,1\n")
    assert Load.parse(str(tmp_path / "a.csv")).watts(T, 4.0) == pytest.approx([4] * 4)


def test_a_live_function():
    assert Load.live(lambda t: 2 * t).watts(T, 4.0) == pytest.approx(2 * T)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sine:1W", "expected constant:1.5W"),
        ("constant:1", "expected a number with one of W, mW"),
        ("square:1W,2A,1s", "expected watts or amperes, got both"),
        ("square:1W,2W", "expected LOW,HIGH,PERIOD"),
        ("ramp:1W,2W,0s", "expected a period above 0"),
        ("none.csv", "expected a table"),
    ],
)
def test_what_is_no_load(text, said):
    with pytest.raises(ConfigError, match=said):
        Load.parse(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "expected columns t and watts"),
        ("t,watts\n0,x\n1,1\n", "column watts: expected numbers"),
        ("t,watts\n0,1\n1,\n", "empty cell"),
        ("t,watts\n1,1\n0,1\n", "never decreases"),
        ("", "expected a table"),
    ],
)
def test_what_is_no_load_file(tmp_path, content, said):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(ConfigError, match=said):
        Load.parse(str(tmp_path / "x.csv"))


def test_faults_come_due_once_or_again():
    faults = Faults.parse(["skip@1:40", "skip@0.5/1:2", "rate:150", "stale"])
    assert faults.rate == pytest.approx(1.00015)
    assert faults.stale
    assert [faults.due("skip", t, int(t * 10)) for t in (0.0, 0.5, 1.0, 1.2, 1.5)] == [0, 2, 40, 0, 2]
    assert [(one.kind, one.amount, one.sample) for one in faults.done] == [
        ("skip", 2, 5),
        ("skip", 40, 10),
        ("skip", 2, 15),
    ]


def test_bytes_are_lost_in_the_middle_and_junk_comes_between():
    faults = Faults.parse(["lose@1:3", "junk@2:4"])
    assert faults.harm(b"0123456789", 0.5, 0) == b"0123456789"
    assert faults.harm(b"0123456789", 1.0, 0) == b"0126789"
    assert faults.harm(b"0123456789", 1.5, 0) == b"0123456789"
    assert len(faults.harm(b"0123456789", 2.0, 0)) == 14
    longer = Faults.parse(["lose@0:12"])
    kept = [longer.harm(b"0123456789", t, 0) for t in (0.0, 1.0, 2.0)]
    assert sum(10 - len(one) for one in kept) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lost@1", "expected one of junk, lose"),
        ("lose", "expected when, in seconds"),
        ("lose@x", "expected KIND"),
        ("over_current@1", "expected one of"),
    ],
)
def test_what_is_no_fault(text, said):
    with pytest.raises(ConfigError, match=said):
        Faults.parse([text])


def test_an_instrument_has_faults_of_its_own():
    assert Faults.parse(["over_current@1"], ["over_current"]).orders[0].kind == "over_current"


def test_a_load_follows_what_the_devices_server_is_at_and_keeps_the_record(tmp_path):
    load = Load.parse("follow:1W,6W,4W")
    activity = load.activity
    assert load.watts(T, 4.0).tolist() == [1.0] * 4
    activity.open(tmp_path / "activity")
    with (tmp_path / "activity").open("r+b", buffering=0) as server:
        server.write(b"2")
        assert activity.look() == 1.0, "nobody holds the file: an old server left that"
        fcntl.flock(server, fcntl.LOCK_EX)
        assert load.watts(T, 4.0).tolist() == [4.0] * 4
        os.pwrite(server.fileno(), b"1", 0)
        assert activity.look() == 6.0
    assert activity.look() == 1.0
    activity.close()
    assert activity.drew == [1.0, 4.0, 6.0, 1.0]
    edges = activity.at[1:]
    assert activity.joules(edges[0] - 1000, edges[2] + 500) == pytest.approx(
        (1000 + 4 * (edges[1] - edges[0]) + 6 * (edges[2] - edges[1]) + 500) * 1e-9
    )


@pytest.mark.parametrize("text", ["follow:1W,2W", "follow:1A,2A,3A", "follow:1,2,3"])
def test_a_load_that_follows_needs_three_powers(text):
    with pytest.raises(ConfigError, match="expected"):
        Load.parse(text)

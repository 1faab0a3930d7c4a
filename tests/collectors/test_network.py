"""Bytes of network interfaces, on this machine's own /proc and on fake ones."""

from __future__ import annotations

import socket

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors.network import COUNTERS, Network, interfaces
from melt_stream.errors import Transient
from tests.collectors.host_tree import collect, plant

TEXT = Network.example()["tree"][COUNTERS]


def test_received_and_sent_are_told_apart():
    lo, wlan = interfaces(TEXT)
    assert lo["interface"] == "lo"
    assert wlan == {
        "interface": "wlan0", "rx_bytes": 7733452, "rx_packets": 6612, "tx_bytes": 441205, "tx_packets": 3105,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("eth0:12345678901 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0", "eth0"),  # old kernels leave no room
        ("eth0:1: 7 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0", "eth0:1"),  # an alias
        ("  rmnet_data0: 7 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0  ", "rmnet_data0"),
    ],
)
def test_lines_that_are_set_otherwise(line, name):
    (row,) = interfaces(line)
    assert (row["interface"], row["tx_bytes"]) == (name, 5)


@given(st.integers(0, len(TEXT)))
def test_a_text_that_was_cut_has_no_half_interface(length):
    whole = list(interfaces(TEXT))
    last = TEXT.rstrip().rpartition(" ")[0]
    rows = list(interfaces(TEXT[:length]))
    assert rows == whole[: len(rows)]
    assert len(list(interfaces(last))) == 1


def test_it_agrees_with_psutil_and_counts_what_is_sent_to_oneself():
    before = {row["interface"]: row for row in Network().read()}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(type=socket.SOCK_DGRAM) as other,
    ):
        one.bind(("127.0.0.1", 0))
        for _ in range(100):
            other.sendto(b"x" * 1000, one.getsockname())
            one.recv(2000)
    theirs = psutil.net_io_counters(pernic=True)
    after = {row["interface"]: row for row in Network().read()}
    assert set(after) == set(theirs)
    assert after["lo"]["tx_bytes"] - before["lo"]["tx_bytes"] >= 100 * 1028
    assert before["lo"]["rx_bytes"] <= theirs["lo"].bytes_recv <= after["lo"]["rx_bytes"]


async def test_an_interface_that_goes_has_no_rows_and_an_empty_file_is_a_gap(tmp_path, autojump_clock):
    root = plant(tmp_path, {COUNTERS: TEXT})
    without = "\n".join(TEXT.splitlines()[:3])
    acts = {
        1.05: lambda: plant(tmp_path, {COUNTERS: without}),
        2.05: lambda: plant(tmp_path, {COUNTERS: ""}),
        3.05: lambda: plant(tmp_path, {COUNTERS: TEXT}),
    }
    rows = await collect(Network(root=root, hz=10), 4, acts)
    times = [row["tick"] / 1e9 for row in rows["x.network"] if row["interface"] == "wlan0"]
    assert len([t for t in times if t < 1.05]) == 11
    assert not [t for t in times if 1.05 < t < 3.05]
    (gap,) = rows["run.gaps"]
    assert gap["lost_rows"] == 10
    with pytest.raises(Transient, match="expected a line an interface"):
        Network(root=plant(tmp_path / "other", {COUNTERS: "junk"})).read()
    assert not Network(root=str(tmp_path / "other")).check().ok

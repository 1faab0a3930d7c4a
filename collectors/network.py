"""What went over each network interface, from /proc/net/dev."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any

import pyarrow as pa
from annotated_types import Gt, Le

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health
from melt_stream.errors import Transient
from melt_stream.outlet import Row
from melt_stream.sensor import Files, FileSensor, Find, read_files
from melt_stream.stream import Column, Stream
from melt_stream.units import BYTE, Unit

COUNTERS = "proc/net/dev"
_BYTES, _PACKETS = Column(BYTE, pa.int64()), Column(Unit("{packets}"), pa.int64())
_LINE = re.compile(r"^\s*(\S+):\s*(\d+(?:\s+\d+){15,})\s*$", re.MULTILINE)
"""An interface and 16 counts: 8 of what was received, bytes and packets first, and 8 of what was sent."""
LARGEST = 2**63 - 1


@dataclass
class Network(FileSensor):
    """The kernel's counts of every interface, as they are; differences are the reader's business.

    They start again from 0 when the interface is made anew. An interface that is not there has no rows.
    """

    _: KW_ONLY
    hz: Annotated[float, Gt(0), Le(20_000)] = 5.0
    """Reads a second."""

    stream = Stream(
        "network", interface=str, rx_bytes=_BYTES, tx_bytes=_BYTES, rx_packets=_PACKETS, tx_packets=_PACKETS
    )

    def files(self, find: Find) -> Mapping[str, str]:
        return {"dev": COUNTERS} if find(COUNTERS) else {}

    def parse(self, files: Files) -> list[Row]:
        if rows := list(interfaces(files["dev"])):
            return rows
        raise Transient(f"{COUNTERS}: expected a line an interface, as 'eth0: 1342 12 0 ...', got none")

    def check(self) -> Health:
        there = health(self, "dev", "proc/net", "a Linux host, with /proc mounted")
        if not there.ok:
            return there
        names = [row["interface"] for row in interfaces(read_files(self.root, {"dev": COUNTERS})["dev"])]
        if not names:
            return Health(False, f"{COUNTERS} has no line of an interface", "a kernel with a network")
        return Health(True, f"{len(names)} interfaces: {', '.join(names)}")

    @staticmethod
    def example() -> dict[str, Any]:
        text = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  103348     912    0    0    0     0          0         0   103348     912    0    0    0     0       0          0
 wlan0: 7733452    6612    0   12    0     0          0         0   441205    3105    0    0    0     0       0          0
"""
        return {"kind": "files", "tree": {COUNTERS: text}, "config": {}}


def interfaces(text: str) -> Iterator[Row]:
    """Return the rows of the lines of /proc/net/dev that are whole; of its two headings there is none."""
    for name, numbers in _LINE.findall(text):
        counts = [min(int(number), LARGEST) for number in numbers.split()]
        yield {
            "interface": name, "rx_bytes": counts[0], "rx_packets": counts[1],
            "tx_bytes": counts[8], "tx_packets": counts[9],
        }  # fmt: skip

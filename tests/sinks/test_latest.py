"""The newest values: of each column, of each label, never a null."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.sink import Batch, Source
from melt_stream.sinks.latest import Latest, Newest
from melt_stream.stream import Stream
from melt_stream.testing import check_sink
from melt_stream.units import CELSIUS, W

POWER = Stream("power", watts=W, volts=float)
ZONES = Stream("zones", zone=str, celsius=CELSIUS)


def batch(stream: Stream, *rows: dict[str, object]) -> Batch:
    source = Source("it", stream)
    return Batch(source, pa.RecordBatch.from_pylist(list(rows), source.schema))


def test_the_newest_value_of_each_column_that_is_not_null():
    latest = Latest()
    latest.add(
        batch(POWER, {"tick": 1, "watts": 1.0, "volts": 5.0}, {"tick": 2, "watts": 2.0, "volts": None})
    )
    assert latest.get("it.power", "watts") == Newest(2, 2.0)
    assert latest.get("it.power", "volts") == Newest(1, 5.0)
    assert latest.get("it.power", "amps") is None


def test_each_label_has_its_own():
    latest = Latest()
    latest.add(
        batch(ZONES, {"tick": 1, "zone": "cpu", "celsius": 50.0}, {"tick": 1, "zone": "gpu", "celsius": 60.0})
    )
    latest.add(batch(ZONES, {"tick": 2, "zone": "cpu", "celsius": 51.0}))
    assert latest.labels("it.zones") == ["cpu", "gpu"]
    assert latest.get("it.zones", "celsius", "cpu") == Newest(2, 51.0)
    assert latest.get("it.zones", "celsius", "gpu") == Newest(1, 60.0)


async def test_it_follows_a_run(autojump_clock):
    class Meter:
        async def collect(self, out: Outlet) -> None:
            out.rows(POWER, tick=np.arange(5000), watts=np.arange(5000.0))

    latest = Latest()
    await record({"meter": Meter()}, [latest])
    assert latest.get("meter.power", "watts") == Newest(4999, 4999.0)
    assert latest.rows["meter.power"] == 5000


async def test_it_keeps_the_contract():
    latest = await check_sink(Latest)
    assert latest.rows["two.samples"] == 2000

"""How far a device's wall clock is ahead of ours, between bounds, from a burst of readings."""

from __future__ import annotations

from typing import NamedTuple

from melt_stream.clock import REALTIME, read_host_clocks
from melt_stream.devices.place import Place
from melt_stream.outlet import Hub


class Ahead(NamedTuple):
    """In s; the truth is no further from ``offset_s`` than ``bound_s``."""

    offset_s: float
    bound_s: float


async def ahead(place: Place) -> Ahead | None:
    """Read the device's clock some times. None where it cannot tell the wall's time. Raises ``Gone``, ``DeviceError``."""
    if (await place.runner()).base != "realtime":
        return None
    hub = Hub()
    async with place.clocked(hub.outlet("devices", place.device.name)):
        pass  # a burst is made at its end
    ours = next(r for r in read_host_clocks() if r.clock == REALTIME)
    assert ours.not_before is not None
    assert ours.not_after is not None
    rows = [
        row
        for batch in hub.take()
        if batch.source.stream.name == "readings"
        for row in batch.data.to_pylist()
    ]
    low = max(round(row["count"] * row["tick_ns"]) - row["not_after"] for row in rows)
    high = min(round((row["count"] + row["resolution"]) * row["tick_ns"]) - row["not_before"] for row in rows)
    least, most = low - (ours.tick - ours.not_before), high - (ours.tick - ours.not_after)
    return Ahead((least + most) / 2e9, max(most - least, 0) / 2e9)

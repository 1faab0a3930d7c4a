"""Streams that the engine itself writes, under the instance name ``run``."""

from __future__ import annotations

from melt_stream.stream import Stream

GAPS = Stream(
    "gaps",
    instance_of=str,
    stream=str,
    clock_of=str,
    epoch_of=int,
    start=int,
    stop=int,
    lost_rows=int,
    reason=str,
)
"""Holes in streams, in ticks of the stream's clock; ``lost_rows`` is null where unknown."""

READINGS = Stream(
    "readings", clock_of=str, epoch_of=int, count=int, resolution=int, not_before=int, not_after=int, kind=str,
    tick_ns=float, rho_ppm=float, same_rate=bool, against=str, against_epoch=int,
)  # fmt: skip
"""Clock readings; ``count`` is the tick that was read, open ends are null; ``against`` is null for the host's clock."""

RAILS = Stream(
    "rails", device_of=str, sensor_of=str, name=str, boundary=str, kind=str, parent=str, window_ns=float, anchor=str,
    gain=float, offset=float, resolution=float, noise=float, modulus=float, nominal_volts=float, full_scale=float,
    estimated=bool, instrument=str, source=str, clock_of=str, sample_period_ns=float,
)  # fmt: skip
"""Each rail once, when its collector declares it; ``sensor_of`` is the key of its stream (``<instance>.<stream>``)."""

FACTS = Stream("facts", instance_of=str, device_of=str, name=str, value=str)
"""Things found out while recording (a model's name, a board's revision); ``value`` is JSON."""

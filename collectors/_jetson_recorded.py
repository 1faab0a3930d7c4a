"""What a tool said of a Jetson, line by line of a file, as rows, rails and gaps."""

from __future__ import annotations

from collections.abc import Sequence

from melt_stream.collectors._jetson_rails import parts_of_total
from melt_stream.collectors._jetson_said import Said, Streams, rails_of
from melt_stream.collectors._whole_seconds import HOLE
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream


async def write(
    out: Outlet,
    said: Sequence[Said],
    tick: Sequence[int],
    t_u: int | None,
    period: float,
    *,
    total: tuple[str, ...] | None,
    source: str,
    where: str,
) -> None:
    """Write what was said at each tick (ns, a ``period`` apart where none is missing).

    ``total`` are the rails of the board's sum, None: what is known of the board. Raises ``DataError`` as ``parts_of_total`` does, ``where``
    in it.
    """
    streams, used = Streams(period), dict[str, Stream]()
    names = dict.fromkeys(name for one in said for name in one.watts)
    parts = parts_of_total(names, total, where)
    for rail in rails_of(names, parts, source):
        out.rail(streams.power, rail)
    for place, (at, one) in enumerate(zip(tick, said, strict=True)):
        if place and at - tick[place - 1] > HOLE * period:
            _hole(out, used, int(tick[place - 1] + period), at, period)
        for stream, row in streams.rows(one, parts):
            used[stream.name] = stream
            out.row(stream, tick=at, t_u=t_u, **row)
        if place % 1024 == 0:
            await out.room()


def _hole(out: Outlet, used: dict[str, Stream], start: int, stop: int, period: float) -> None:
    lost = max(1, round((stop - start) / period))
    for stream in used.values():
        out.gap(stream, start, stop, "lines are missing in the log", lost=lost)

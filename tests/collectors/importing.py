"""Running an importer to its end, its time axis from 0."""

from __future__ import annotations

from typing import Any

import trio

from melt_stream.engine import record
from melt_stream.outlet import Hub
from melt_stream.testing import Keep


def imported(importer: Any) -> Keep:
    """Run it alone, and return its rows; what it raises is raised."""
    hub, keep = Hub(now=lambda: 0), Keep()
    trio.run(importer.collect, hub.outlet("it"))
    keep.add(hub.take())
    return keep


def imported_by_the_engine(importer: Any) -> Keep:
    """Run it as the engine does, and return all rows; its failure is raised."""

    async def main() -> Keep:
        keep = Keep()
        ending = await record({"it": importer}, [keep], now=lambda: 0)
        if ending.error is not None:
            raise ending.error
        return keep

    return trio.run(main)

"""An emulated Otii for the time of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from melt_stream.emulators import Faults, Load, Place
from melt_stream.emulators.otii import Otii


@asynccontextmanager
async def playing(
    *faults: str, load: str = "square:100mA,500mA,100ms", **fields: Any
) -> AsyncIterator[tuple[Otii, Place]]:
    server = Otii(load=Load.parse(load), faults=Faults.parse(faults, Otii.own_faults), **fields)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(server.play)
        yield server, place
        nursery.cancel_scope.cancel()

"""trio-asyncio, for us alone: importing it makes its event loops everybody's, and a program that embeds us may run asyncio elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import suppress

_BEFORE = asyncio.get_event_loop_policy()

import trio_asyncio  # noqa: E402 - what was before it must be known

with suppress(RuntimeError):  # in Trio, or imported by somebody else before: then it is theirs
    asyncio.set_event_loop_policy(_BEFORE)

aio_as_trio, open_loop, run_aio_future = (
    trio_asyncio.aio_as_trio,
    trio_asyncio.open_loop,
    trio_asyncio.run_aio_future,
)

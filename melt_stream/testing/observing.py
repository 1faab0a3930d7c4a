"""Running a collector on a clock that jumps from one deadline to the next."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
import trio.testing

from melt_stream.engine import Ending, record
from melt_stream.testing.keep import Keep


def trio_now() -> int:
    """Trio's own time in ns, which a ``MockClock`` drives."""
    return round(trio.current_time() * 1e9)


def observe(collector: Any, *, seconds: float = 10.0, instance: str = "it") -> tuple[Keep, Ending]:
    """Run a collector alone for some seconds of a clock that jumps; return what was kept, and how it ended.

    Takes no real time. A poller's reads happen in the Trio thread. For collectors that wait for something other than
    Trio's clock (sockets, processes, threads) use ``record`` with a real clock.
    """
    keep = Keep()
    clock = trio.testing.MockClock(autojump_threshold=0)
    run = partial(record, {instance: collector}, [keep], seconds=seconds, now=trio_now)
    return keep, trio.run(run, clock=clock)

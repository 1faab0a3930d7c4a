"""Fake trees of /proc and /sys, and the rows that a collector makes of them, through the real poller and outlet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from melt_stream.outlet import Hub
from melt_stream.testing import FakeTree

Rows = dict[str, list[dict[str, Any]]]


def plant(root: Path, tree: Mapping[str, str]) -> str:
    """Write the files below ``root``, beside those that are there; return it as a collector's ``root``."""
    return str(FakeTree(root, tree).root)


def spoil(root: str | Path, *names: str) -> None:
    """Make files unreadable."""
    for name in names:
        FakeTree(Path(root)).make_unreadable(name)


async def collect(
    collector: Any, seconds: float, at: Mapping[float, Callable[[], None]] | None = None
) -> Rows:
    """Run a collector on trio's (fake) time, calling ``at[t]`` at t seconds; return each stream's rows by its key.

    Needs ``autojump_clock``: no real time passes.
    """
    start = trio.current_time()
    hub = Hub(now=lambda: round((trio.current_time() - start) * 1e9))
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.collect, hub.outlet("x"))
            for when, act in sorted((at or {}).items()):
                await trio.sleep_until(start + when)
                act()
    rows: Rows = defaultdict(list)
    for batch in hub.take():
        rows[batch.source.key] += batch.data.to_pylist()
    return rows


def rails(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the rails that were declared, by name."""
    return {rail["name"]: rail for rail in rows["run.rails"]}

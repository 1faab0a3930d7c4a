"""What a collector and a workload are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from melt_stream.outlet import Outlet


@dataclass(frozen=True)
class Health:
    """What ``melt-stream doctor`` says of a collector on this machine."""

    ok: bool
    what: str
    """What is there, or why it is not available."""
    cure: str = ""
    """What would help."""


class Collector(Protocol):
    """Puts rows in an outlet until it is cancelled or has no more.

    A dataclass whose fields are its configuration. It may also have ``optional: bool`` (a failure does not end
    the run), ``order: int`` (0 by default: one begins when those of a lower order are ready, and ends before they do;
    what is not of order 0 holds a condition, and keeps no run going), ``prepare()``, called in a thread before
    anything is measured (drivers imported, kernels compiled), ``check() -> Health`` for ``melt-stream doctor``, and
    a static method ``example() -> dict`` that says in plain data how to run it without hardware (see
    ``melt_stream.testing``).
    """

    async def collect(self, out: Outlet) -> None:
        """Run; return when there is nothing more to measure.

        Raise ``Transient`` where asking again may help, ``DeviceError`` where it will not.
        """


class Workload(Protocol):
    """What is measured: the same call, started when every required collector is ready; it ends by itself.

    One that wraps a command has ``exit_status``, which the run passes on. It is never asked again.
    """

    async def collect(self, out: Outlet) -> None:
        """Run to the end; events go to streams made by ``melt_stream.events.events``."""

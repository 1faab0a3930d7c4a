"""Stand-ins for instruments: bit-exact on a real pty or socket, playing a load at true rate, with faults to order.

An emulator is a dataclass with ``load`` and ``faults`` among its fields and one method, ``play``, found by the
entry point ``melt_stream.emulators``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators._faults import Faults
from melt_stream.emulators._llama_server import launcher
from melt_stream.emulators._load import Load

__all__ = ["Emulated", "Emulator", "Faults", "Load", "Place"]

STEP_S = 0.001
"""In which a load is added up."""

Place = dict[str, str | int]
"""Where to connect: ``port`` (a path), or ``host`` and ``tcp_port``; whatever else a client must know."""


class Emulator(Protocol):
    """What ``melt-stream emulate`` plays."""

    load: Load
    faults: Faults
    began: int

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the instrument until cancelled; report where to connect as soon as that is possible."""


@dataclass
class Emulated:
    """The fields that every emulator has."""

    _: KW_ONLY
    load: Load = field(default_factory=lambda: Load.parse("constant:1W"))
    faults: Faults = field(default_factory=Faults)
    began: int = field(default_factory=monotonic, init=False)
    """Host monotonic time, ns, at which the load's second 0 lies."""

    def seconds(self) -> float:
        """Seconds of the load that have passed, by the host's clock."""
        return (monotonic() - self.began) / 1e9

    def joules(self, since: float, until: float, volts: float = 1.0) -> float:
        """Return what the load draws between two of its seconds, from a supply of so many volts."""
        if (followed := self.load.activity) is None:
            step = (until - since) / (count := max(1, round((until - since) / STEP_S)))
            middles = np.asarray(since + (np.arange(count) + 0.5) * step, np.float64)
            return float(self.load.watts(middles, volts).sum() * step)
        drawn = followed.joules(*(self.began + round(seconds * 1e9) for seconds in (since, until)))
        followed.look()
        return drawn

    @contextmanager
    def served(self, folder: Path, activity: Path) -> Iterator[None]:
        """Put a ``llama-server`` into ``folder``; for the time of the body the load follows what it is at, if it is one that does."""
        followed = self.load.activity
        script = folder / "llama-server"
        script.write_text(launcher(activity if followed else None))
        script.chmod(0o755)
        if followed is None:
            yield
            return
        followed.open(activity)
        try:
            yield
        finally:
            followed.close()

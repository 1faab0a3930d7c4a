"""A Jetson AGX Orin behind a real sshd: its INA3221 rails follow the load, and NVIDIA's tools are on its PATH.

As root, ``/sys`` is its own on the machine; else the tree lies elsewhere, and ``root`` says where a sensor must look.
"""

from __future__ import annotations

import signal
import tempfile
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._jetson_tools import GENERATIONS, tools
from melt_stream.emulators._jetson_tree import Tree
from melt_stream.emulators._sshd import Machine

HOST = "127.0.0.1"
WATCH_S = 0.02
"""How often it is looked whether a fault is due."""
BOOTING_S = 0.5


@dataclass
class Jetson(Emulated):
    """One board. ``unplug@4:2`` kills every connection and closes each new one for 2 s; commands go on, as on a board whose cable is pulled.

    ``reboot`` there ends all that runs, where root allows it. ``stall@3:2`` holds all connections up for 2 s; ``rate:80`` has its clocks run 80 ppm fast, by libfaketime.
    """

    own_faults: ClassVar[tuple[str, ...]] = ()

    _: KW_ONLY
    generation: int = 6
    """JetPack 4, 6 or 7: the grammar of tegrastats."""
    update_hz: float = 50.0
    """How often the chips sample."""
    offset_s: float = 0.0
    """Its wall clock is ahead of ours by so much."""
    uptime_s: float = 0.0
    """Its monotonic clock is ahead of ours by so much, where root allows it."""
    machine: Machine = field(init=False, repr=False, compare=False)
    _asked: Path = field(init=False, repr=False, compare=False)
    """Is there where a reboot is asked for."""

    def __post_init__(self) -> None:
        if self.generation not in GENERATIONS:
            raise ValueError(f"generation: expected one of {GENERATIONS}, got {self.generation}")

    async def play(self, task_status: trio.TaskStatus[Place] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the board until cancelled."""
        with tempfile.TemporaryDirectory(prefix="melt-jetson-") as folder:
            root = Path(folder)
            self.machine = machine = Machine(root, self.offset_s, self.faults.rate, self.uptime_s)
            tree = Tree(root)
            tree.lay(round(1000 / self.update_hz))
            self._install(root)
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            port = listener.socket.getsockname()[1]
            async with listener, machine.up(HOST, port), trio.open_nursery() as nursery:
                self.began = monotonic()
                tree.show(self._watts())
                nursery.start_soon(partial(trio.serve_listeners, machine.serve, [listener]))
                task_status.started(
                    {
                        "host": HOST, "tcp_port": port, "user": machine.user, "identity": f"{root}/id",
                        "known_hosts": f"{root}/known_hosts", "root": "/" if machine.own else str(root),
                    }
                )  # fmt: skip
                nursery.start_soon(self._follow, tree)
                while True:
                    await trio.sleep(WATCH_S)
                    await self._fail()

    async def _follow(self, tree: Tree) -> None:
        while True:
            await trio.sleep(1 / self.update_hz)
            tree.show(self._watts())

    def _install(self, root: Path) -> None:
        (root / "bin").mkdir()
        self._asked = root / "reboot" / "now"
        self._asked.parent.mkdir()
        self._asked.parent.chmod(0o777)  # for the board's own user
        own = self.machine.own
        for name, script in tools(
            self.generation, "" if own else str(root), str(self._asked) if own else ""
        ).items():
            (root / "bin" / name).write_text(script)
            (root / "bin" / name).chmod(0o755)

    async def _fail(self) -> None:
        """Play what is due, to its end."""
        if self._asked.exists():
            await self._reboot()
        due = partial(self.faults.due, seconds=self.seconds(), sample=0)
        if pause := due("unplug"):
            self.machine.cut = True
            self.machine.signal(signal.SIGKILL)
            await trio.sleep(pause)
            self.machine.cut = False
        if pause := due("stall"):
            self.machine.signal(signal.SIGSTOP)
            await trio.sleep(pause)
            self.machine.signal(signal.SIGCONT)

    async def _reboot(self) -> None:
        self.machine.cut = True
        await self.machine.halt()
        self.machine.boot()
        self._asked.unlink()
        await trio.sleep(BOOTING_S)
        self.machine.cut = False

    def _watts(self) -> float:
        return float(self.load.watts(np.array([self.seconds()]), 1.0)[0])

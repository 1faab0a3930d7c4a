"""A Jetson AGX Orin behind a real sshd: its INA3221 rails follow the load, and NVIDIA's tools are on its PATH,
jetson-stats' client in its python3.

As root, ``/sys`` is its own on the machine; else the tree lies elsewhere, and ``root`` says where a sensor must look.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import trio

from melt_stream.clock import monotonic
from melt_stream.emulators import Emulated, Place
from melt_stream.emulators._jetson_tools import GENERATIONS, jtop, tools
from melt_stream.emulators._jetson_tree import Tree
from melt_stream.emulators._sshd import Machine

HOST = "127.0.0.1"
KEYS = ("id", "known_hosts")
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
    port: int = 0
    """Where its sshd listens; 0: any that is free."""
    keys: str = ""
    """The folder that gets the throw-away ``id`` and ``known_hosts``, which are taken out of it at the end; empty: one of its own."""
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
            self.machine = Machine(root, self.offset_s, self.faults.rate, self.uptime_s)
            self.machine.environment["PYTHONPATH"] = f"{root}/lib"
            tree = Tree(root)
            tree.lay(round(1000 / self.update_hz))
            self._install(root)
            with self.served(root / "bin", root / "activity"):
                await self._play(root, tree, task_status)

    async def _play(self, root: Path, tree: Tree, task_status: trio.TaskStatus[Place]) -> None:
        (listener,) = await trio.open_tcp_listeners(self.port, host=HOST)
        port = listener.socket.getsockname()[1]
        async with listener, self.machine.up(HOST, port), trio.open_nursery() as nursery:
            self.began = monotonic()
            tree.show(self._watts())
            nursery.start_soon(partial(trio.serve_listeners, self.machine.serve, [listener]))
            with self._handed_out(root) as keys:
                task_status.started(
                    {
                        "host": HOST, "tcp_port": port, "user": self.machine.user, "identity": f"{keys}/id",
                        "known_hosts": f"{keys}/known_hosts", "root": "/" if self.machine.own else str(root),
                    }
                )  # fmt: skip
                nursery.start_soon(self._follow, tree)
                while True:
                    await trio.sleep(WATCH_S)
                    await self._fail()

    @contextmanager
    def _handed_out(self, root: Path) -> Iterator[Path]:
        """Yield where the keys are for others."""
        if not self.keys:
            yield root
            return
        folder = Path(self.keys).resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in KEYS:
            shutil.copy2(root / name, folder / name)
        try:
            yield folder
        finally:
            for name in KEYS:
                (folder / name).unlink(missing_ok=True)

    async def _follow(self, tree: Tree) -> None:
        looked = self.seconds()
        while True:
            await trio.sleep(1 / self.update_hz)
            since, looked = looked, self.seconds()
            tree.show(
                self.joules(since, looked) / (looked - since)
            )  # the interval's mean, as real chips have it
            if self.load.activity is not None:
                self.load.activity.showed()

    def _install(self, root: Path) -> None:
        (root / "bin").mkdir()
        self._asked = root / "reboot" / "now"
        self._asked.parent.mkdir()
        self._asked.parent.chmod(0o777)  # for the board's own user
        (root / "state").mkdir()
        (root / "state/mode").write_text("0\n")
        for path in (root / "state", root / "state/mode"):
            path.chmod(0o777)  # whoever is let in may set the mode
        (root / "lib").mkdir()
        own = self.machine.own
        where = "" if own else str(root)
        (root / "lib" / "jtop.py").write_text(jtop(where))
        for name, script in tools(self.generation, where, str(self._asked) if own else "").items():
            (root / "bin" / name).write_text(script)
            (root / "bin" / name).chmod(0o755)

    async def unplug(self, seconds: float) -> None:
        """Drop all connections; nobody can connect for so long."""
        self.machine.cut = True
        self.machine.signal(signal.SIGKILL)
        await trio.sleep(seconds)
        self.machine.cut = False

    async def _fail(self) -> None:
        """Play what is due, to its end."""
        if self._asked.exists():
            await self._reboot()
        due = partial(self.faults.due, seconds=self.seconds(), sample=0)
        if pause := due("unplug"):
            await self.unplug(pause)
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

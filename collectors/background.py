"""Collector ``background``: a known load that goes on beside what is measured."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any

import trio
from pydantic import Field, NonNegativeInt

from melt_stream.collector import Health
from melt_stream.devices import Device, Gone, Local, Place
from melt_stream.devices.channel import Channel, quoted
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

FAREWELL_S = 5.0
_KEEPER = r"""
exec 3<&0
n=$1
shift
pids=
while [ "$n" -gt 0 ]; do
    (exec "$@") 3<&- </dev/null >/dev/null &
    pids="$pids $!"
    n=$((n - 1))
done
{ while read -r x; do :; done; kill $pids; } <&3 >/dev/null 2>&1 &
w=$!
echo begun
for p in $pids; do wait $p; s=$?; done
kill $w 2>/dev/null
exit $s
"""
"""Keeps copies of a command until its stdin ends, which it does when we leave, or die, or the device's link breaks."""
_SPIN = ["sh", "-c", "while :; do :; done"]
_SENDER = "import socket, sys; line = socket.create_connection(sys.argv[1:3])\nwhile True: line.sendall(bytes(1 << 16))"


@dataclass
class Background:
    """Runs the load from before the first baseline to after the last, on this machine or on the entry's ``device``.

    It is on during the idle baselines too, so that net energy is still what the workload adds. It never outlives us, also
    when we are killed. Without any it does nothing: the point of a study's axis that others are held against. Raises ``DeviceError`` where a load ends by itself: no such program, nobody who takes the bytes.
    """

    cpu: NonNegativeInt = 0
    """Processes that compute without end: each keeps a core busy."""
    memory: NonNegativeInt = 0
    """Processes that write ``block_mb`` of memory again and again (``dd`` from /dev/zero): they take bandwidth, and caches."""
    network: str = ""
    """``HOST:PORT`` that is sent to as fast as it takes it; on a device, by its ``nc``."""
    _: KW_ONLY
    block_mb: Annotated[int, Field(gt=0)] = 64
    """More than the last cache holds."""
    place: Place | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        host, colon, port = self.network.rpartition(":")
        if self.network and not (host and colon and port.isdecimal()):
            raise ConfigError(f"network: expected HOST:PORT, got {self.network!r}")

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"cpu": 1}}

    def check(self) -> Health:
        """Tell whether this machine can; starts nothing."""
        if self.memory and self.place is None and shutil.which("dd") is None:
            return Health(False, "no dd for memory = ...", "install coreutils")
        return Health(
            True, ", ".join(name for name, *_ in self.loads()) or "no load: set cpu, memory or network"
        )

    def on(self, place: Place) -> Background:
        """Return one whose load is on a device."""
        made = replace(self)
        made.place = place
        return made

    def loads(self) -> Iterator[tuple[str, int, list[str]]]:
        """Yield the name, the number of copies and the command of each load."""
        if self.cpu:
            yield "cpu", self.cpu, _SPIN
        if self.memory:
            yield "memory", self.memory, ["dd", "if=/dev/zero", "of=/dev/null", f"bs={self.block_mb << 20}"]
        if self.network:
            host, _, port = self.network.rpartition(":")
            here = [sys.executable, "-c", _SENDER, host, port]
            yield (
                "network",
                1,
                here if self.place is None else ["sh", "-c", f"exec nc {quoted([host, port])} </dev/zero"],
            )

    async def collect(self, out: Outlet) -> None:
        device = Local() if self.place is None else self.place.device
        loads = list(self.loads())
        out.fact("load", {name: copies for name, copies, _ in loads})
        async with trio.open_nursery() as nursery:
            for name, copies, command in loads:
                await nursery.start(_keep, device, name, ["sh", "-c", _KEEPER, "load", str(copies), *command])
                out.row(EVENTS, kind="mark", name=f"background {name}", detail=json.dumps({"copies": copies}))
            out.ready()
            await trio.sleep_forever()


async def _keep(
    device: Device,
    name: str,
    words: list[str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with device.channel(quoted(words)) as channel:
        if await channel.receive() != b"begun\n":
            raise await _ended(device, name, channel)
        task_status.started()
        try:
            while await channel.receive():
                pass
            raise await _ended(device, name, channel)
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True):
                await _farewell(channel)


async def _ended(device: Device, name: str, channel: Channel) -> DeviceError:
    status = await channel.status()
    return DeviceError(
        f"{device.name}: expected the load {name!r} to go on, got its end with exit status {status}: {channel.complaints()[-300:]}"
    )


async def _farewell(channel: Channel) -> None:
    """Let it see the end of its stdin, and wait until it has killed its load."""
    try:
        await channel.close_stdin()
        await channel.status()
    except Gone:
        return  # there the end of the link is the end of its stdin

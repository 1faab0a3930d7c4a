"""What a run's machines say before and after it: whether they booted, and whether their kernels killed for memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from melt_stream.devices import Device, run
from melt_stream.devices.place import BOOT_ID
from melt_stream.ending import Ending
from melt_stream.errors import DeviceError
from melt_stream.harness.study.failure import Evidence

_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
ANSWER_S, PAUSE_S = 15.0, 1.0


@dataclass(frozen=True)
class Seen:
    """Machines at one moment, by name; who did not answer is missing."""

    boots: dict[str, str] = field(default_factory=dict)
    oom_kills: dict[str, int] = field(default_factory=dict)
    """Processes that the kernel killed for memory since it booted (``oom_kill`` of /proc/vmstat, Linux 4.13)."""


async def look(devices: Mapping[str, Device]) -> Seen:
    """Ask all machines, each at most ``ANSWER_S`` long."""
    seen = Seen()
    async with trio.open_nursery() as nursery:
        for name, device in devices.items():
            nursery.start_soon(_ask, name, device, seen)
    return seen


async def look_again(devices: Mapping[str, Device], before: Seen, patience_s: float) -> Seen:
    """Ask until all that answered before do again, for ``patience_s`` at most."""
    seen = await look(devices)
    with trio.move_on_after(patience_s):
        while before.boots.keys() - seen.boots.keys():
            await trio.sleep(PAUSE_S)
            seen = await look(devices)
    return seen


def evidence(ending: Ending, before: Seen, after: Seen, devices: Mapping[str, Device]) -> Evidence:
    """Return what is known of a run that failed."""
    return Evidence(
        ending.error,
        ending.exit_status,
        rebooted=tuple(name for name, boot in after.boots.items() if before.boots.get(name, boot) != boot),
        unreachable=tuple(name for name in devices if name not in after.boots),
        oom_kills=_risen(before.oom_kills, after.oom_kills, len(devices)),
    )


def _risen(before: Mapping[str, int], after: Mapping[str, int], machines: int) -> int | None:
    known = before.keys() & after.keys()
    risen = sum(max(0, after[name] - before[name]) for name in known)
    return risen if risen or len(known) == machines else None


async def _ask(name: str, device: Device, seen: Seen) -> None:
    try:
        done = await run(device, ["cat", BOOT_ID, "/proc/vmstat"], deadline_s=ANSWER_S)
    except DeviceError:
        return
    text = done.out.decode(errors="replace")
    seen.boots[name] = text.partition("\n")[0].strip()
    if found := _OOM_KILLS.search(text):
        seen.oom_kills[name] = int(found[1])

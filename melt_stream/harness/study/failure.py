"""Why a run failed: what is known of it, and the kinds that are told apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from melt_stream.collectors.command import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED
from melt_stream.devices import Gone
from melt_stream.ending import TimedOut
from melt_stream.errors import ConfigError

Failure = Literal["oom", "reboot", "crash", "timeout", "device_gone", "configuration", "other"]
HOPELESS = frozenset[Failure]({"oom", "configuration"})
"""Made again with nothing changed, it fails again: a cell's other runs are skipped."""

_NO_MEMORY = re.compile(
    r"out[ -]of[ -]memory|(?:cannot|failed to|unable to) allocate|bad_alloc|ErrorOutOf\w*Memory|\bENOMEM\b|MemoryError|oom-?kill",
    re.IGNORECASE,
)
_KILLED = re.compile(r"killed by SIGKILL|exit status (?:-9|137)\b")
_ENDED = re.compile(
    r"killed by SIG[A-Z]+|exit status -?[1-9]\d*|ended by itself|does not answer any more|Segmentation fault|core dumped"
)
_KILL = SIGNALLED + 9


@dataclass(frozen=True)
class Evidence:
    """What is known of a run that failed."""

    error: BaseException | None = None
    """What ended it; its text has a server's last words."""
    exit_status: int | None = None
    """Of the command that it wrapped: as a shell gives it."""
    rebooted: tuple[str, ...] = ()
    """Devices that have another boot id than before."""
    unreachable: tuple[str, ...] = ()
    """Devices that do not answer."""
    oom_kills: int | None = None
    """Processes that the kernels of its machines killed for memory meanwhile; None where nobody knows."""


def failure(seen: Evidence) -> Failure:
    """Return the kind of a failure, the surest evidence first.

    A process killed by SIGKILL, which nobody here sends, died for want of memory where the kernel counted such a kill or
    cannot be asked, and crashed where it counted none.
    """
    if isinstance(seen.error, ConfigError):
        return "configuration"
    if seen.rebooted:
        return "reboot"
    if seen.unreachable or isinstance(seen.error, Gone):
        return "device_gone"
    if isinstance(seen.error, TimedOut | TimeoutError):
        return "timeout"  # how the processes that we ended then took it says nothing
    text = "" if seen.error is None else f"{type(seen.error).__name__}: {seen.error}"
    killed = seen.exit_status == _KILL or bool(_KILLED.search(text))
    if _NO_MEMORY.search(text) or (killed and seen.oom_kills != 0):
        return "oom"
    if seen.error is None and seen.exit_status in {NOT_FOUND, NOT_EXECUTABLE}:
        return "configuration"
    return "crash" if seen.exit_status or _ENDED.search(text) else "other"

"""What can run the loop on a device, found out once: the best that it has, and what that cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from melt_stream.devices.channel import quoted
from melt_stream.devices.programs import (
    BY_DATE,
    BY_SHELL,
    BY_UPTIME,
    OUTPUT,
    PYTHON_LINES,
    PYTHON_LOOP,
    SHELL_LINES,
    SHELL_LOOP,
    SLOW_LOOP,
)
from melt_stream.errors import DeviceError

Kind = Literal["shell", "python3", "sleep", "date", "uptime"]
"""Best first. ``shell`` and ``python3`` start no process for a sample; a shell that knows the time but must ``sleep`` in a process of its
own starts one; one that asks ``date`` for the time besides, four; one that reads ``/proc/uptime``, one, and is good to 10 ms."""
SHELLS = ("sh", "bash", "mksh", "busybox sh")
"""Tried in this order."""
MOST_HZ: dict[Kind, float] = {"shell": 1000.0, "python3": 1000.0, "sleep": 25.0, "date": 10.0, "uptime": 10.0}
"""The fastest that each is asked to sample: where processes are started for it, a slow board must not be busy with that alone."""
UPTIME_US = 10_000
"""A tick of ``/proc/uptime``."""
_NOW: dict[Kind, str] = {"shell": BY_SHELL, "sleep": BY_SHELL, "date": BY_DATE, "uptime": BY_UPTIME}
_PROBE = r"""
for s in {shells}; do $s -c '[ -n "$EPOCHREALTIME" ] && {{ sleep 0.1 || sleep 1; }} | {{ read -rt 0.01 x; [ $? -gt 128 ]; }}' 2>/dev/null && echo "shell $s" && exit; done
python3 -I -S -c 'import select, sys, time; sys.exit(sys.version_info < (3, 5))' 2>/dev/null && echo python3 python3 && exit
sleep 0.001 2>/dev/null && [ $((2147483647 + 1)) -gt 0 ] || exit 0
for s in {shells}; do $s -c '[ -n "$EPOCHREALTIME" ]' 2>/dev/null && echo "sleep $s" && exit; done
case $(date +%s.%N) in *[!0-9.]*) ;; *.?????????) echo date sh; exit ;; esac
read -r u _ </proc/uptime && echo uptime sh
:
"""


@dataclass(frozen=True)
class Runner:
    """What runs the loop on one device."""

    kind: Kind
    words: tuple[str, ...]
    """Of the interpreter."""

    @property
    def base(self) -> str:
        """Which of the device's clocks it stamps with: that of the wall, or the time since the boot."""
        return "uptime" if self.kind == "uptime" else "realtime"

    @property
    def resolution(self) -> int:
        """A tick of that clock, in us."""
        return UPTIME_US if self.kind == "uptime" else 1

    @property
    def most_hz(self) -> float:
        """The fastest that it is asked to sample."""
        return MOST_HZ[self.kind]

    def loop(self, paths: Sequence[str], hz: float, *, jitter: bool) -> str:
        """Return the line that samples files; at ``most_hz`` where ``hz`` is more."""
        text = {"shell": SHELL_LOOP, "python3": PYTHON_LOOP}.get(self.kind, SLOW_LOOP)
        return self._line(text, [str(round(1e6 / min(hz, self.most_hz))), str(int(jitter)), *paths])

    def lines(self, command: Sequence[str]) -> str:
        """Return the line that runs a command, each of whose lines gets its time."""
        return self._line(PYTHON_LINES if self.kind == "python3" else SHELL_LINES, command)

    def output(self, command: Sequence[str], given: str) -> str:
        """Return the line that runs a command with a text as its stdin; our end of stdin, closed, stops it."""
        shell = ["sh"] if self.kind == "python3" else self.words
        return f"LC_ALL=C exec {quoted([*shell, '-c', OUTPUT, 'output', given, *command])}"

    def _line(self, text: str, arguments: Sequence[str]) -> str:
        flags = ["-I", "-S", "-c"] if self.kind == "python3" else ["-c"]
        name = [] if self.kind == "python3" else ["loop"]
        program = text.replace("@NOW@", _NOW.get(self.kind, ""))
        return f"LC_ALL=C exec {quoted([*self.words, *flags, program, *name, *arguments])}"


def probe() -> str:
    """Return a script for any shell that prints what ``found`` takes."""
    return _PROBE.format(shells=" ".join(f"'{shell}'" for shell in SHELLS))


def found(said: str, device: str) -> Runner:
    """Return what the probe has found. Raises ``DeviceError`` where that is nothing that can run the loop."""
    kind, *words = said.split() or ["nothing"]
    for known in get_args(Kind):
        if kind == known and words:
            return Runner(known, tuple(words))
    raise DeviceError(
        f"{device}: expected a shell with EPOCHREALTIME (mksh, or bash 5), python3, or a sleep for fractions of a second beside "
        f"`date +%N` or /proc/uptime, got {said.strip()[:80] or 'none'!r}; install bash"
    )

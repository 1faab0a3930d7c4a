"""A look at the memory of processes on a device: a program for its shell, and what it says. Pure.

The program uses built-ins alone: it reads every process's name, and of those that are wanted what the kernel sums up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.collectors._sysfs import integers

LOOK = r"""
if [ -n "$KSH_VERSION" ]; then put() { print -r -- "$1"; }; else put() { printf '%s\n' "$1"; }; fi
show() { { while IFS= read -r l; do put "$1 $l"; done; } 2>/dev/null <"$2"; }
wanted() {
    case $by in pid) [ "$1" = "$what" ]; return ;; esac
    c=
    { IFS= read -r c; } 2>/dev/null <"/proc/$1/comm"
    case $c in "$short") return 0 ;; esac
    a=
    { IFS= read -rd '' a; } 2>/dev/null <"/proc/$1/cmdline"
    [ "$a" = "$what" ] || [ "${a##*/}" = "$what" ]
}
by=$1 short=$2 what=$3
for d in /proc/[0-9]*; do
    p=${d##*/}
    wanted "$p" || continue
    put "process $p"
    show stat "$d/stat"
    show status "$d/status"
    show rollup "$d/smaps_rollup"
done
{ while read -r k v; do [ "$k" = oom_kill ] && put "oom_kill $v"; done; } 2>/dev/null </proc/vmstat
put "all told"
"""
SHELL = r"""
for s in sh bash mksh 'busybox sh'; do
    [ "$(printf 'a\0b' | $s -c 'IFS= read -rd "" a && echo "$a"' 2>/dev/null)" = a ] && echo "$s" && exit
done
"""
"""Prints the words of a shell that can run it: it needs a ``read`` that reads to NUL."""
COMM = 15
"""The kernel keeps so many characters of a name, its first; Android's zygote gives it the last of a package's."""
STARTED = 19
"""Where, after the name, /proc/PID/stat has the time of its start, in clock ticks since boot."""
_STAT = re.compile(r"\d+ \((.*)\) (.*)")


@dataclass(frozen=True)
class Process:
    """One process, in bytes; what the kernel does not show is None."""

    pid: int
    name: str
    started: int
    """In ticks since boot: a number that is used again is another process."""
    rss: int | None = None
    pss: int | None = None
    """Shared pages divided among their users."""
    uss: int | None = None
    """Pages of its own."""
    swap: int | None = None
    peak: int | None = None
    """The most that was ever resident."""


@dataclass(frozen=True)
class Seen:
    """What one look gave."""

    processes: list[Process] = field(default_factory=list)
    oom_kills: int | None = None
    """How many processes the kernel has killed for want of memory since boot; None where it does not tell."""


class Change(NamedTuple):
    """A process that came or went between two looks."""

    process: Process
    came: bool
    oom_kills: int | None
    """By the kernel, between the two."""

    @property
    def words(self) -> str:
        """In words."""
        if self.came:
            return f"process {self.process.pid} ({self.process.name}) is there"
        kills = "unknown" if self.oom_kills is None else self.oom_kills
        return (
            f"process {self.process.pid} ({self.process.name}) is gone; kernel's OOM kills meanwhile: {kills}"
        )


def seen(text: str) -> Seen | None:
    """Read what the program says; None where it did not come to its end."""
    if not text.rstrip().endswith("all told"):
        return None
    blocks = re.split(r"^process (?=\d+$)", text, flags=re.MULTILINE)[1:]
    kills = re.search(r"^oom_kill (\d{1,18})$", text, flags=re.MULTILINE)
    found = (one for block in blocks if (one := _process(block)))
    return Seen(list(found), int(kills[1]) if kills else None)


def changes(before: Seen, now: Seen) -> list[Change]:
    """Return which processes went, then which came."""
    kills = None
    if before.oom_kills is not None and now.oom_kills is not None:
        kills = max(0, now.oom_kills - before.oom_kills)
    old, new = ({(one.pid, one.started): one for one in look.processes} for look in (before, now))
    gone = [Change(one, False, kills) for key, one in old.items() if key not in new]
    return gone + [Change(one, True, kills) for key, one in new.items() if key not in old]


def _process(block: str) -> Process | None:
    """Read one block; None where the process went while it was read."""
    pid = block.partition("\n")[0]
    stat = _STAT.fullmatch(_of(block, "stat"))
    if stat is None or len(words := stat[2].split()) <= STARTED or not words[STARTED].isdecimal():
        return None
    if words[0] in {"Z", "X"}:  # it is dead, and only waited for
        return None
    status, rollup = (integers(_of(block, kind)) for kind in ("status", "rollup"))
    kib = {
        "rss": rollup.get("Rss", status.get("VmRSS")), "pss": rollup.get("Pss"), "uss": unique_set(rollup),
        "swap": rollup.get("Swap", status.get("VmSwap")), "peak": status.get("VmHWM"),
    }  # fmt: skip
    sizes = {name: None if value is None else value * 1024 for name, value in kib.items()}
    return Process(int(pid), stat[1], int(words[STARTED]), **sizes)


def _of(block: str, kind: str) -> str:
    lines = (line for line in block.splitlines() if line.startswith(f"{kind} "))
    return "\n".join(line.removeprefix(f"{kind} ") for line in lines)


def unique_set(rollup: Mapping[str, int]) -> int | None:
    """Return the kB of the pages that are the process's own, of its smaps_rollup; None where that does not tell."""
    parts = [rollup[name] for name in ("Private_Clean", "Private_Dirty") if name in rollup]
    return sum(parts) if parts else None

"""What nvidia-smi's queries print, into numbers. Pure.

After its ``--help-query-gpu`` and man page. A value that a GPU does not have is text: ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]``,
``[GPU requires reset]``, ...: unknown, and never zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

FORMAT = "--format=csv,noheader,nounits"
POWER = ("power.draw.instant", "power.draw.average", "power.draw")
"""The last one is what drivers before 530 have alone, and means one of the two others."""
HELD_BACK = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""Since driver 535, and before."""
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_HEX = re.compile(r"0x0{0,16}([0-9A-Fa-f]{1,15})")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,60}")
_LISTED = re.compile(r'"([a-z0-9_.]+)"')


def number(word: str) -> float | None:
    """A number in the field's unit; None for any text."""
    return float(word) if _NUMBER.fullmatch(word) else None


def megahertz(word: str) -> float | None:
    """A frequency in Hz."""
    return None if (value := number(word)) is None else value * 1e6


def mebibytes(word: str) -> int | None:
    """A size in bytes."""
    return None if (value := number(word)) is None else round(value * (1 << 20))


def bits(word: str) -> int | None:
    """A bit mask, such as 0x0000000000000004."""
    return int(match[1], 16) if (match := _HEX.fullmatch(word)) else None


STATE: dict[str, tuple[str, Callable[[str], float | int | None]]] = {
    "utilization.gpu": ("utilization", number), "utilization.memory": ("memory_utilization", number),
    "temperature.gpu": ("celsius", number), "clocks.sm": ("sm_clock", megahertz), "clocks.mem": ("memory_clock", megahertz),
    "memory.used": ("memory_used", mebibytes), "memory.total": ("memory_total", mebibytes),
    **dict.fromkeys(HELD_BACK, ("held_back", bits)),
}  # fmt: skip
"""Column of the stream, and meaning, of each field that is asked for."""


class Card(NamedTuple):
    """A GPU."""

    number: int
    """Its index, as nvidia-smi counts."""
    uuid: str
    name: str
    capability: float | None
    """CUDA compute capability, 9.0; None where the driver does not tell."""
    driver: str


class Reading(NamedTuple):
    """What one line says of one GPU."""

    uuid: str
    watts: dict[str, float]
    """By the names in :data:`POWER`."""
    state: dict[str, float | int | None]


def known(help_text: str) -> list[str]:
    """Return those of our fields that this nvidia-smi knows, in our order; of two that mean the same, the newer."""
    listed = set(_LISTED.findall(help_text))
    power = [name for name in POWER[:2] if name in listed] or [name for name in POWER[2:] if name in listed]
    old = HELD_BACK[1] if HELD_BACK[0] in listed else ""
    return [*power, *(name for name in STATE if name in listed and name != old)]


def identity(help_text: str) -> str:
    """Return the query that :func:`cards` reads; drivers before 450 or so do not know the capability, and another text stands in its place."""
    capability = "compute_cap" if '"compute_cap"' in help_text else "uuid"
    return f"index,uuid,driver_version,{capability},name"


def cards(text: str) -> list[Card]:
    """Return the GPUs of lines of :func:`identity`, by index; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        words = [word.strip() for word in line.split(",", 4)]
        if len(words) == 5 and words[0].isdecimal() and len(words[0]) < 6 and _UUID.fullmatch(words[1]):
            found.append(Card(int(words[0]), words[1], words[4][:128], number(words[3]), words[2][:32]))
    return sorted(found)


def reading(line: str, fields: Sequence[str]) -> Reading | None:
    """Read a line of ``uuid`` and these fields; None where it is none."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != 1 + len(fields) or not _UUID.fullmatch(words[0]):
        return None
    told = dict(zip(fields, words[1:], strict=True))
    watts = {name: watts for name in POWER if (watts := number(told.get(name, ""))) is not None}
    state = {STATE[name][0]: STATE[name][1](word) for name, word in told.items() if name in STATE}
    return Reading(words[0], watts, state)

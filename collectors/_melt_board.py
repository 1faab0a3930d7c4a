"""``energy_iter{r}.log`` of JetsonLab: lines of its monitor, into readings of all rails and of the zones. Pure.

    1709741000123456789 GPU-therm: 35125 mC
    1709741000123460000 voltage_VDD_GPU_SOC: 19952 mV
    1709741000123461000 current_VDD_GPU_SOC: 200 mA
    1709741000123462000 power_VDD_GPU_SOC: 3990.4 mW

The monitor reads the zones and logs them, then reads all rails and logs them: a stamp says when a line was written, and the rails were read
between the line before the first of theirs and that one. Its counter of rounds is printed into the same file from another buffer, so that bare integers
stand anywhere, also before a stamp without a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from melt_stream.errors import DataError

FILE_LIMIT = 8 << 30
"""Bytes of a log: 0.5 GB an hour."""
_LINE = re.compile(r"\d{0,12}([1-8]\d{18}) ([A-Za-z][\w.-]{0,60}): (-?\d{1,12}(?:\.\d{1,12})?) (mV|mA|mW|mC)")
_RAIL = re.compile(r"(voltage|current|power)_([\w.-]{1,40})")
_COUNT = re.compile(r"\d{1,12}")
_KINDS = {"mV": "voltage", "mA": "current", "mW": "power"}


@dataclass
class Round:
    """One round of the monitor: what was read of the rails, then logged."""

    after: int | None
    """The rails were read after this, ns since 1970; None where no line is before."""
    before: int
    """... and before this: the first line of theirs."""
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """By rail: voltage (mV), current (mA), power (mW)."""
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By rail: when its voltage and its current were logged."""

    def watts(self, rail: str) -> float | None:
        """Power of a rail, W: voltage times current where both are there, else what the monitor made of them."""
        read = self.values[rail]
        if "voltage" in read and "current" in read:
            return read["voltage"] * read["current"] * 1e-6
        return read["power"] * 1e-3 if "power" in read else None


@dataclass
class Zone:
    """A temperature."""

    at: int
    name: str
    celsius: float


@dataclass
class BoardLog:
    """Reads one log; what is no line of the monitor is left out and counted."""

    path: Path
    counts: int = 0
    """Bare integers."""
    junk: int = 0
    """Other lines."""

    def read(self, lines: Iterable[tuple[int, str]]) -> Iterator[Round | Zone]:
        """Yield rounds and temperatures in order. Raises ``DataError`` with the line where times go back."""
        last: int | None = None
        now: Round | None = None
        for number, line in lines:
            if (match := _LINE.fullmatch(line.strip())) is None:
                self._left_out(line)
                continue
            at, name, value, unit = int(match[1]), match[2], float(match[3]), match[4]
            if last is not None and at < last:
                raise DataError(
                    f"{self.path}, line {number}: expected times that never decrease, got {at} after {last}; was the clock set? Split the log there"
                )
            rail = _RAIL.fullmatch(name)
            if unit == "mC" or rail is None or _KINDS.get(unit) != rail[1]:
                if now is not None:
                    yield now
                    now = None
                if unit == "mC":
                    yield Zone(at, name, value / 1000)
                else:
                    self.junk += 1
            else:
                kind, where = rail.groups()
                if now is not None and kind in now.values.get(where, ()):
                    yield now
                    now = None
                now = now or Round(last, at)
                now.values.setdefault(where, {})[kind] = value
                if kind in ("voltage", "current"):
                    seen = now.stamps.get(where, (at, at))
                    now.stamps[where] = (at, seen[1]) if kind == "voltage" else (seen[0], at)
            last = at
        if now is not None:
            yield now

    def _left_out(self, line: str) -> None:
        if _COUNT.fullmatch(line.strip()):
            self.counts += 1
        elif line.strip():
            self.junk += 1

"""
What an emulated instrument measures, as a function of time::

    constant:1.5W                 always 1.5 W (W, mW, A, mA, uA)
    square:0.5W,4W,100ms          half of each 100 ms 0.5 W, then 4 W
    ramp:0W,4W,2s                 from 0 W to 4 W in 2 s, again and again
    load.csv, load.parquet        a file with columns t (s) and watts, or amps, or volts and amps; repeated
    follow:1W,6W,4W               what the device's own llama-server is at: nothing, a prompt, an answer

A load in watts draws as many amperes as the instrument's voltage makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.emulators._activity import STATES, Activity
from melt_stream.errors import ConfigError

Array = np.ndarray[Any, np.dtype[np.float64]]
SCALES = {"W": ("W", 1.0), "mW": ("W", 1e-3), "A": ("A", 1.0), "mA": ("A", 1e-3), "uA": ("A", 1e-6)}
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
NUMBER = re.compile(r"([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*([a-zA-Z]+)")


@dataclass(frozen=True)
class Load:
    """Power or current over time."""

    unit: str
    """``W`` or ``A``: what ``value`` returns."""
    value: Callable[[Array], Array]
    """From seconds since the load began, an array, to as many watts or amperes; a live one may look at anything."""
    text: str = "live"
    activity: Activity | None = None
    """What it follows, of a device that runs a server."""

    def amps(self, seconds: Array, volts: float) -> Array:
        """Return the current at these times where the supply is at ``volts``; none flows where it is off."""
        values = np.asarray(self.value(seconds), np.float64)
        if self.unit == "A":
            return values
        return values / volts if volts > 0 else np.zeros_like(values)

    def watts(self, seconds: Array, volts: float) -> Array:
        """Return the power at these times where the supply is at ``volts``."""
        return self.amps(seconds, volts) * volts

    @classmethod
    def parse(cls, text: str) -> Load:
        """Make a load of a pattern, or of the path of a file. Raises ``ConfigError``."""
        kind, colon, rest = text.partition(":")
        if colon and kind in PATTERNS:
            return PATTERNS[kind](rest.split(","), text)
        if Path(text).suffix in {".csv", ".parquet"}:
            return _from_file(Path(text))
        raise ConfigError(
            f"--load {text}: expected constant:1.5W, square:LOW,HIGH,PERIOD, ramp:LOW,HIGH,PERIOD, "
            "follow:IDLE,PREFILL,DECODE, or a file .csv or .parquet"
        )

    @classmethod
    def live(cls, watts: Callable[[Array], Array]) -> Load:
        """Make a load that asks a function for watts, given seconds since the load began."""
        return cls("W", watts)


def _constant(words: list[str], text: str) -> Load:
    (value,), unit = _values(words, 1, text)
    return Load(unit, lambda seconds: np.full(len(seconds), value), text)


def _square(words: list[str], text: str) -> Load:
    (low, high), unit = _values(words[:2], 2, text)
    period = _time(words[2:], text)
    return Load(unit, lambda seconds: np.where(seconds % period < period / 2, low, high), text)


def _ramp(words: list[str], text: str) -> Load:
    (low, high), unit = _values(words[:2], 2, text)
    period = _time(words[2:], text)
    return Load(unit, lambda seconds: low + (high - low) * (seconds % period) / period, text)


def _follow(words: list[str], text: str) -> Load:
    watts, unit = _values(words, len(STATES), text)
    if unit != "W":
        raise ConfigError(f"--load {text}: expected watts, got amperes")
    activity = Activity(watts)
    return Load(unit, activity.value, text, activity)


PATTERNS = {"constant": _constant, "square": _square, "ramp": _ramp, "follow": _follow}


def _values(words: list[str], count: int, text: str) -> tuple[list[float], str]:
    if len(words) != count:
        raise ConfigError(f"--load {text}: expected {count} values with units, got {len(words)}")
    read = [_number(word, SCALES, text) for word in words]
    units = {SCALES[unit][0] for _, unit in read}
    if len(units) != 1:
        raise ConfigError(f"--load {text}: expected watts or amperes, got both")
    return [number * SCALES[unit][1] for number, unit in read], units.pop()


def _time(words: list[str], text: str) -> float:
    if len(words) != 1:
        raise ConfigError(f"--load {text}: expected LOW,HIGH,PERIOD, got {len(words) + 2} values")
    number, unit = _number(words[0], TIMES, text)
    if number <= 0:
        raise ConfigError(f"--load {text}: expected a period above 0, got {words[0]}")
    return number * TIMES[unit]


def _number(word: str, units: dict[str, Any], text: str) -> tuple[float, str]:
    match = NUMBER.fullmatch(word.strip())
    if match is None or match[2] not in units:
        raise ConfigError(f"--load {text}: expected a number with one of {', '.join(units)}, got {word!r}")
    return float(match[1]), match[2]


def _from_file(path: Path) -> Load:
    try:
        table = _read(path)
    except (OSError, pa.ArrowInvalid) as exc:
        raise ConfigError(f"--load {path}: expected a table, got: {exc}") from exc
    names = set(table.column_names)
    if "t" not in names or not names & {"watts", "amps"}:
        raise ConfigError(
            f"--load {path}: expected columns t and watts, or t and amps, got {', '.join(table.column_names)}"
        )
    seconds = _column(table, "t", path)
    if "watts" in names:
        unit, values = "W", _column(table, "watts", path)
    elif "volts" in names:
        unit, values = "W", _column(table, "volts", path) * _column(table, "amps", path)
    else:
        unit, values = "A", _column(table, "amps", path)
    if len(seconds) < 2 or not (np.diff(seconds) >= 0).all():
        raise ConfigError(f"--load {path}: expected two or more rows whose t never decreases")
    seconds = seconds - seconds[0]
    length = seconds[-1]
    return Load(unit, lambda at: np.interp(at % length, seconds, values), str(path))


def _read(path: Path) -> pa.Table:
    if path.suffix == ".csv":
        from pyarrow import csv

        return csv.read_csv(path)
    from pyarrow import parquet

    return parquet.read_table(path)


def _column(table: pa.Table, name: str, path: Path) -> Array:
    try:
        values: Array = table[name].cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as exc:
        raise ConfigError(f"--load {path}: column {name}: expected numbers, got: {exc}") from exc
    if not np.isfinite(values).all():
        raise ConfigError(f"--load {path}: column {name}: expected numbers, got an empty cell")
    return values

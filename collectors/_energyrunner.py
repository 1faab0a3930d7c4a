"""What the files of an EEMBC EnergyRunner session say, and the rule behind its official energies.

Pure parsers, from bytes and lines to values; nothing here knows about outlets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors._files import seconds_to_ns
from melt_stream.errors import DataError
from melt_stream.units import J, Unit, W

HEADER_BYTES = 5
MAX_EDGES = 200_000
_MAX_RATE = 1e8
_STAMP = re.compile(r"(\d{1,10})\.(\d{1,9}) ([^\s:]{1,64}): ?(.*)", re.DOTALL)
_ENERGY = re.compile(r"Energy data for window (\d{1,9}) at time ([\d.]{1,30}) for ([\d.]{1,30}) sec")
_PERFORMANCE = re.compile(r"Performance results for window (\d{1,9}):")
_VALUE = re.compile(
    r" *(Energy|Power|Energy/Inf\.|# Inferences|Runtime|Throughput) *: *([\d.eE+-]{1,40}) *([^ ]*)"
)
_NUMBER = re.compile(r"\d{1,30}(\.\d{0,30})?([eE][+-]?\d{1,2})?")
FloatArray = np.ndarray[Any, np.dtype[np.float64]]


def trace_rate(header: bytes, path: Path) -> float:
    """Return the sample rate, Hz, from a trace's first five bytes: 0xF1, then a little-endian float32."""
    if len(header) < HEADER_BYTES or header[0] != 0xF1:
        got = header[:1].hex() or "the end of the file"
        raise DataError(
            f"{path}, byte 0: expected 0xf1 and a sample rate, got {got}; was the file copied whole?"
        )
    rate = float(np.frombuffer(header, "<f4", 1, 1)[0])
    if not 0 < rate <= _MAX_RATE:
        raise DataError(f"{path}, byte 1: expected a sample rate of up to {_MAX_RATE:g} Hz, got {rate!r}")
    return rate


def edges_ns(values: object, path: Path) -> list[int]:
    """Return the time stamps of a trace's edges in ns since its start, from the JSON array of seconds."""
    if not isinstance(values, list) or len(values) > MAX_EDGES:
        raise DataError(
            f"{path}: expected an array of up to {MAX_EDGES} seconds, got {type(values).__name__}"
        )
    edges = [seconds_to_ns(value, f"{path}, element {k}") for k, value in enumerate(values)]
    for k, (before, after) in enumerate(zip([0, *edges], edges, strict=False)):
        if after < before:
            raise DataError(f"{path}, element {k}: expected at least {before / 1e9} s, got {after / 1e9} s")
    return edges


class LogLine(NamedTuple):
    """A line of ``log.txt``; ``ns`` counts from the log's first line."""

    ns: int
    source: str | None
    """Who spoke (``parser``, ``emon``, ``io``, ``dut``); None for a line without a stamp of its own."""
    text: str


def log_lines(lines: Iterable[tuple[int, str]], path: Path) -> Iterator[LogLine]:
    """Yield the log's lines. Noise on the serial line leaves lines without a stamp: they get the last one."""
    first = last = None
    for number, line in lines:
        if (found := _STAMP.match(line)) is None:
            if first is None and line.strip():
                raise DataError(
                    f"{path}, line {number}: expected '00012.345 source: text', got {line[:80]!r}"
                )
            if last is not None and line.strip():
                yield LogLine(last, None, line)
            continue
        stamp = seconds_to_ns(f"{found[1]}.{found[2]}", f"{path}, line {number}")
        first = stamp if first is None else first
        if last is not None and stamp - first < last:
            raise DataError(
                f"{path}, line {number}: expected a stamp not before the last one, got {line[:40]!r}"
            )
        last = stamp - first
        yield LogLine(last, found[3], found[4])


@dataclass
class WindowResult:
    """What ``results.txt`` says of one window, in J, W, s; None where it is silent."""

    window: int
    """EnergyRunner's number: window w lies between the edges w - 1 and w."""
    line: int
    at_s: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    """By quantity: joules, mean_w, joules_per_inference, inferences, seconds, inferences_per_s."""


def window_results(lines: Iterable[tuple[int, str]], path: Path) -> dict[int, WindowResult]:
    """Return the official figures by window, in whatever order their blocks come."""
    results: dict[int, WindowResult] = {}
    current: WindowResult | None = None
    for number, line in lines:
        stamped = _STAMP.match(line)
        text = stamped[4] if stamped else line
        if found := _ENERGY.match(text) or _PERFORMANCE.match(text):
            current = results.setdefault(int(found[1]), WindowResult(int(found[1]), number))
            if found.re is _ENERGY:
                current.at_s = float(_number(found[2], path, number))
        elif current is not None and (value := _VALUE.match(text)):
            quantity, figure = _quantity(value[1], value[2], value[3], f"{path}, line {number}")
            current.values[quantity] = figure
        if len(results) > MAX_EDGES:
            raise DataError(f"{path}, line {number}: expected up to {MAX_EDGES} windows, got more")
    return results


def _number(text: str, path: Path, line: int) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise DataError(f"{path}, line {line}: expected a number, got {text!r}")
    return Decimal(text)


def _quantity(label: str, figure: str, unit: str, where: str) -> tuple[str, float]:
    plain = {"# Inferences": "inferences", "Runtime": "seconds", "Throughput": "inferences_per_s"}
    if not _NUMBER.fullmatch(figure):
        raise DataError(f"{where}: expected a number after {label!r}, got {figure!r}")
    if label in plain:
        return plain[label], float(figure)
    name, base = {
        "Energy": ("joules", J),
        "Power": ("mean_w", W),
        "Energy/Inf.": ("joules_per_inference", J),
    }[label]
    try:
        factor = Unit(unit.removesuffix("/inf.")).to(base)
    except ValueError as exc:
        raise DataError(f"{where}: {exc}") from exc
    return name, float(Decimal(figure) * Decimal(repr(factor)))


class OfficialRule:
    """EnergyRunner's own sums, fed block by block.

    Sample k counts in a window where start <= t_k <= end, with t_0 = 0 and t_{k+1} = t_k + 1/rate accumulated in
    binary64. On 75 published recordings this reproduces each reported energy to their last digit, and each reported
    power as energy / (samples counted / rate).
    """

    def __init__(self, windows: list[tuple[int, int]], rate: float) -> None:
        self._starts = np.array([start for start, _ in windows], np.float64) / 1e9
        self._ends = np.array([end for _, end in windows], np.float64) / 1e9
        self._step = 1.0 / rate
        self._next = 0.0
        self.sums: FloatArray = np.zeros(len(windows))
        """Of each window, in the samples' unit."""
        self.counts = np.zeros(len(windows), np.int64)
        """Samples of each window."""

    def feed(self, samples: FloatArray) -> None:
        """Take the next samples, as float64."""
        steps = np.full(len(samples) + 1, self._step)
        steps[0] = self._next
        times = np.cumsum(
            steps
        )  # one after the other, as the rule says; a product k / rate differs at the edges
        self._next = float(times[-1])
        low = np.searchsorted(times[:-1], self._starts, "left")
        high = np.maximum(np.searchsorted(times[:-1], self._ends, "right"), low)
        for k in np.flatnonzero(high > low):
            self.sums[k] += samples[low[k] : high[k]].sum()
        self.counts += high - low

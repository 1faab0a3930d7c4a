"""Following one channel of an Otii recording while it grows, and putting currents and voltages side by side.

A reply holds the time of its first sample and the interval; nothing says that the others follow without a hole. So the
time of a block's last sample is asked for too, and where it is later than the interval allows, halving finds the place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from melt_stream.collectors._otii_link import Link
from melt_stream.errors import DeviceError, Transient

Array = np.ndarray[Any, Any]
BLOCK = 40_000
"""Entries asked for at once, as Qoitech's client does."""
NUMBER = (int, float)


class Run(NamedTuple):
    """Samples that follow one another at the channel's interval."""

    tick: int
    """Of the first, in ns of the recording."""
    values: Array

    def ticks(self, interval: float) -> Array:
        """Return all ticks."""
        ticks: Array = self.tick + np.rint(np.arange(len(self.values)) * interval).astype(np.int64)
        return ticks


class Hole(NamedTuple):
    """Samples are missing between two ticks."""

    start: int
    """Tick of the last one before it."""
    stop: int
    """Tick of the first one after it."""
    lost: int


class Block(NamedTuple):
    """An analog reply."""

    tick: int
    interval: float
    """ns."""
    values: Array


def analog(data: Mapping[str, Any], asked: str) -> Block:
    """Read a reply of an analog channel. Raises ``DeviceError`` where it is none."""
    values, timestamp, interval = (data.get(key) for key in ("values", "timestamp", "interval"))
    numbers = _numbers(values)
    if numbers is None or not _is_time(timestamp) or not _is_time(interval) or interval <= 0:
        raise DeviceError(
            f"Otii, {asked}: expected timestamp, interval and values as numbers, got {str(dict(data))[:120]}"
        )
    return Block(round(timestamp * 1e9), interval * 1e9, numbers)


def _numbers(values: object) -> Array | None:
    """An array of finite numbers, or None where that is none."""
    if not isinstance(values, list) or not {int, float}.issuperset(map(type, values)):
        return None
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:  # JSON's integers have no end
        return None
    return numbers if bool(np.isfinite(numbers).all()) else None


def entries(data: Mapping[str, Any], kind: type, asked: str) -> list[tuple[int, Any]]:
    """Read a reply of a digital (``bool``) or text (``str``) channel: ticks and values, in order. Raises ``DeviceError``."""
    values = data.get("values")
    found: list[tuple[int, Any]] = []
    for entry in values if isinstance(values, list) else [values]:
        if (
            not isinstance(entry, dict)
            or not _is_time(entry.get("timestamp"))
            or not isinstance(entry.get("value"), kind)
        ):
            raise DeviceError(
                f"Otii, {asked}: expected values with timestamp and {kind.__name__}, got {str(entry)[:120]}"
            )
        value = entry["value"]
        if isinstance(value, str):
            value = value.encode(errors="replace").decode()  # JSON may hold half a surrogate pair
        found.append((round(entry["timestamp"] * 1e9), value))
    return sorted(found, key=lambda one: one[0])


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, NUMBER) and not isinstance(value, bool) and abs(value) < 1e9


@dataclass
class Channel:
    """One channel of one recording, from its first entry on."""

    link: Link
    device: str
    recording: int
    name: str
    interval: float = 0.0
    """ns; 0 before the first block."""
    last: int | None = None
    """Tick of the newest sample that was given out."""
    index: int = 0
    """Entries that were given out."""

    async def counted(self) -> tuple[int, int]:
        """Return how many entries there are, and the host's time when that was told."""
        answer = await self._ask("count")
        count = answer.get("count", int, f"{self.name}, count")
        if count < self.index:
            raise Transient(
                f"Otii, {self.name}: expected {self.index} entries or more, got {count}: the recording was cropped"
            )
        return count, answer.at

    async def samples(self, count: int) -> list[Run | Hole]:
        """Return what is new up to entry ``count``, at most a block."""
        pieces: list[Run | Hole] = []
        if count == self.index:
            return pieces
        block = await self._block(self.index, min(BLOCK, count - self.index))
        tick, values = block.tick, block.values
        while len(values):
            fitting = await self._following(tick, len(values))
            pieces += self._placed(tick, values[:fitting])
            self.index += fitting
            values = values[fitting:]
            if len(values):
                tick = (await self._block(self.index, 1)).tick
        return pieces

    async def entries(self, kind: type) -> list[tuple[int, Any]]:
        """Return what is new of a digital or text channel."""
        count, _ = await self.counted()
        if count == self.index:
            return []
        answer = await self._ask("", index=self.index, count=min(BLOCK, count - self.index))
        found = entries(answer.data, kind, self.name)
        self.index += len(found)
        return found

    def _placed(self, tick: int, values: Array) -> list[Run | Hole]:
        """A run, with the hole before it where there is one."""
        pieces: list[Run | Hole] = []
        if self.last is not None:
            late = (tick - self.last) / self.interval - 1
            if late < -0.5:
                raise Transient(
                    f"Otii, {self.name}: expected a sample after {self.last / 1e9:.6f} s, got one at "
                    f"{tick / 1e9:.6f} s of the recording"
                )
            if late >= 0.5:
                pieces.append(Hole(self.last, tick, round(late)))
        self.last = tick + round((len(values) - 1) * self.interval)
        return [*pieces, Run(tick, values)]

    async def _following(self, tick: int, count: int) -> int:
        """How many of ``count`` entries from ``index`` on follow one another: a hole makes all after it late."""
        if count == 1 or await self._fits(tick, count - 1):
            return count
        good, bad = 0, count - 1
        while bad - good > 1:
            middle = (good + bad) // 2
            if await self._fits(tick, middle):
                good = middle
            else:
                bad = middle
        return bad

    async def _fits(self, tick: int, ahead: int) -> bool:
        there = (await self._block(self.index + ahead, 1)).tick
        return abs(there - tick - ahead * self.interval) < self.interval / 2

    async def _block(self, index: int, count: int) -> Block:
        asked = f"{self.name}, {count} from {index} on"
        block = analog((await self._ask("", index=index, count=count)).data, asked)
        if not 0 < len(block.values) <= count:
            raise Transient(f"Otii, {asked}: expected so many samples, got {len(block.values)}")
        self.interval = self.interval or block.interval
        if abs(block.interval / self.interval - 1) > 1e-3:
            raise DeviceError(
                f"Otii, {asked}: expected samples each {self.interval:g} ns, got {block.interval:g}"
            )
        return block

    async def _ask(self, what: str, **more: int) -> Any:
        command = "recording_get_channel_data" + (f"_{what}" if what else "")
        return await self.link.ask(
            command, recording_id=self.recording, device_id=self.device, channel=self.name, **more
        )


@dataclass
class Pairing:
    """Gives each current the voltage of its moment, between the two samples of it that are nearest. Pure.

    The voltage may be sampled at another rate (an Arc's: 1 kHz, where the current has 4 kHz). Within a hole of it, it is nan.
    """

    period: float = 0.0
    """ns between two voltages."""
    _ticks: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    _amps: Array = field(default_factory=lambda: np.zeros(0))
    _at: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    _volts: Array = field(default_factory=lambda: np.zeros(0))

    def current(self, ticks: Array, amps: Array) -> None:
        """Add currents."""
        self._ticks, self._amps = np.append(self._ticks, ticks), np.append(self._amps, amps)

    def voltage(self, ticks: Array, volts: Array) -> None:
        """Add voltages."""
        self._at, self._volts = np.append(self._at, ticks), np.append(self._volts, volts)

    @property
    def behind(self) -> int:
        """How much of the currents, in ns, waits for voltages."""
        return int(self._ticks[-1] - self._ticks[0]) if len(self._ticks) else 0

    def take(self, *, last: bool = False) -> tuple[Array, Array, Array]:
        """Return ticks, amps and volts of the currents whose voltage is known; the last ones take it from before."""
        newest = self._at[-1] + (self.period if last else 0) if len(self._at) else -(1 << 62)
        ready = int(np.searchsorted(self._ticks, newest, "right"))
        ticks, amps = self._ticks[:ready], self._amps[:ready]
        self._ticks, self._amps = self._ticks[ready:], self._amps[ready:]
        volts = self._between(ticks)
        if ready:
            used = max(0, int(np.searchsorted(self._at, ticks[-1], "right")) - 1)
            self._at, self._volts = self._at[used:], self._volts[used:]
        return ticks, amps, volts

    def _between(self, ticks: Array) -> Array:
        if not len(ticks):
            return np.zeros(0)
        after = np.searchsorted(self._at, ticks, "right")
        left = self._at[np.maximum(after - 1, 0)]
        right = self._at[np.minimum(after, len(self._at) - 1)]
        nearest = np.where(
            ticks - left <= abs(right - ticks), np.maximum(after - 1, 0), np.minimum(after, len(self._at) - 1)
        )
        volts = np.interp(ticks, self._at, self._volts)
        volts = np.where(right - left > 1.5 * self.period, self._volts[nearest], volts)
        too_far = np.abs(self._at[nearest] - ticks) > self.period
        return np.where(too_far, np.nan, volts)

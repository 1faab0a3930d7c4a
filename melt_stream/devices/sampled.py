"""A sensor of files, read by the loop on a device and stamped by the device's own clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import trio

from melt_stream.clock import Clock
from melt_stream.devices.channel import Channel, Device, quoted, run
from melt_stream.devices.exchange import Exchange
from melt_stream.devices.loop import Parser
from melt_stream.devices.loop import Sample as Seen
from melt_stream.devices.place import Boots, Place
from melt_stream.devices.talk import Talk, ended
from melt_stream.errors import DeviceError, Transient
from melt_stream.hand import Hand, Sample
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.reading import Text, Unreadable
from melt_stream.sensor import Constant, Files, FileSensor

GLOB = re.compile(r"[\w./*?\[\]:@+,-]+")


class Found(NamedTuple):
    """What one look at a sensor's files on a device told."""

    files: int
    readable: int
    rails: list[Rail]


@dataclass
class Sampled:
    """Runs a sensor's files through the loop on ``device`` until cancelled; a collector.

    Raises ``Gone`` where the link ends, ``DeviceError`` where the device has no shell that can, or none of the files.
    """

    sensor: FileSensor
    device: Device
    boots: Boots = field(default_factory=Boots)

    @property
    def optional(self) -> bool:
        """As the sensor's."""
        return self.sensor.optional

    @property
    def place(self) -> Place:
        """Where it reads."""
        return Place(self.device, self.boots)

    @property
    def clock(self) -> Clock:
        """The device's wall clock."""
        return self.place.clock

    async def collect(self, out: Outlet) -> None:
        runner, epoch = await self.place.runner(), await self.place.epoch()
        self.sensor.hz = min(self.sensor.hz, runner.most_hz)  # what its streams then say of their period
        paths = await self._paths()
        fixed = {key: path for key, path in paths.items() if isinstance(path, Constant)}
        constants = await self._once(fixed) if fixed else {}
        hand = Hand(self.sensor, out, self.clock, epoch)
        kept = {key: path for key, path in paths.items() if key not in constants}
        reading = _Reading(self, out, hand, kept, constants)
        first = await reading.first()
        line = runner.loop(reading.files, self.sensor.hz, jitter=first)
        try:
            async with self.device.channel(line) as channel:
                await reading.run(channel)
        finally:
            hand.close()
            out.fact("loop", {
                "kind": runner.kind, "words": " ".join(runner.words), "hz": self.sensor.hz,
                "samples": reading.samples, "cpu_s": reading.cpu_s,
            })  # fmt: skip

    async def found(self) -> Found:
        """Look once. Raises ``Gone``, ``DeviceError`` where there are none of its files."""
        paths = await self._paths()
        texts = (await self.sample([self.full(path) for path in paths.values()])).texts
        with suppress(Transient):
            self.sensor.tell(Files(_named(paths, texts)))
        return Found(
            len(paths), sum(text is not None for text in texts), [rail for _, rail in self.sensor.rails()]
        )

    async def _paths(self) -> Mapping[str, str]:
        def find(pattern: str) -> list[str]:
            return trio.from_thread.run(self._find, pattern)

        paths = await trio.to_thread.run_sync(self.sensor.files, find)
        if not paths:
            elsewhere = f"; on a phone try kind = {self.sensor.elsewhere}" if self.sensor.elsewhere else ""
            raise DeviceError(
                f"{self.device.name}: expected files of {type(self.sensor).__name__} below {self.sensor.root}, got none{elsewhere}"
            )
        return paths

    async def _find(self, pattern: str) -> list[str]:
        if not GLOB.fullmatch(pattern):
            raise DeviceError(f"expected a pattern of paths, got {pattern!r}")
        root = self.sensor.root.rstrip("/") + "/"
        script = f'for f in {quoted([root])}{pattern}; do [ -e "$f" ] && echo "$f"; done; :'
        found = (await run(self.device, ["sh", "-c", script])).out.decode(errors="replace").splitlines()
        return sorted(path.removeprefix(root) for path in found)

    async def _once(self, paths: Mapping[str, str]) -> dict[str, str]:
        """Read files one time; those that cannot be read are left out."""
        seen = await self.sample([self.full(path) for path in paths.values()])
        return {key: text for key, text in zip(paths, seen.texts, strict=True) if text is not None}

    async def sample(self, files: Sequence[str]) -> Seen:
        """Return one sample of the loop."""
        runner = await self.place.runner()
        parser = Parser(len(files), runner.resolution)
        async with self.device.channel(runner.loop(files, 1.0, jitter=False)) as channel:
            while data := await channel.receive():
                for said in parser.feed(data):
                    if isinstance(said, Seen):
                        return said
            raise ended(self.device.name, await channel.status(), channel)

    def full(self, path: str) -> str:
        """Return a path as the device has it."""
        return f"{self.sensor.root.rstrip('/')}/{path}"


@dataclass
class _Reading:
    """What the loop says, as rows and readings."""

    sampled: Sampled
    out: Outlet
    hand: Hand
    paths: Mapping[str, str]
    constants: Mapping[str, str]
    samples: int = 0
    cpu_s: float | None = None
    _slot: int = -1

    @property
    def files(self) -> list[str]:
        return [self.sampled.full(path) for path in self.paths.values()]

    async def first(self) -> bool:
        """Take one sample, which tells the rails; return whether to read at random moments of the slots."""
        self._take(await self.sampled.sample(self.files))
        self._slot = -1
        return self.hand.jitter

    async def run(self, channel: Channel) -> None:
        """Take samples until cancelled; then end the loop in order."""
        place, hz = self.sampled.place, self.sampled.sensor.hz
        runner = await place.runner()
        exchange = Exchange(channel, place.clock, self.hand.epoch, self.out, runner.resolution)
        parser = Parser(len(self.paths), runner.resolution)
        talk = Talk(place.device.name, channel, parser, exchange, self._take, hz)
        try:
            await talk.run()
        finally:
            self.cpu_s = talk.cpu_s

    def _take(self, seen: Seen) -> None:
        self.samples += 1
        missed, self._slot = seen.slot - self._slot - 1, seen.slot
        self.hand.take(Sample(seen.before, seen.after, self._files(seen.texts), missed))

    def _files(self, texts: Sequence[str | None]) -> Any:
        if texts and all(text is None for text in texts):
            return Transient(f"{self.sampled.device.name}: none of its files can be read any more")
        return Files({**self.constants, **_named(self.paths, texts)})


def _named(paths: Mapping[str, str], texts: Sequence[str | None]) -> dict[str, Text]:
    """The texts of files by key; one that is not there could not be read."""
    return {
        key: Unreadable(path, "unreadable on the device") if text is None else text
        for (key, path), text in zip(paths.items(), texts, strict=True)
    }

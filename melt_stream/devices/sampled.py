"""A sensor of files, read by the loop on a device and stamped by the device's own clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from melt_stream.clock import Clock, Reading
from melt_stream.devices.channel import Channel, Device, Gone, quoted, run
from melt_stream.devices.loop import Ended, Parser, Shown, probe, program
from melt_stream.devices.loop import Sample as Seen
from melt_stream.errors import DeviceError, Transient
from melt_stream.hand import Hand, Sample
from melt_stream.outlet import Outlet
from melt_stream.reading import Unreadable
from melt_stream.sensor import Constant, Files, FileSensor

BOOT_ID = "/proc/sys/kernel/random/boot_id"
BURST = 8
"""Readings of the device's clock at the start and at the end; one a second between."""
SILENCE_S = 5.0
"""The link is taken for dead after so long, or three periods, without a word."""
FAREWELL_S = 2.0
ANSWER_S = 0.5
"""After which a request is made again: a shell loses one whose bytes its ``read`` gave up on in the middle (mksh: 1 %)."""
GLOB = re.compile(r"[\w./*?\[\]:@+,-]+")


@dataclass
class Boots:
    """The boots of a device: its clocks' epochs. One for all that is read there."""

    ids: list[str] = field(default_factory=list)

    def epoch(self, boot_id: str) -> int:
        """Return which boot this is, counted from 0."""
        if boot_id not in self.ids:
            self.ids.append(boot_id)
        return self.ids.index(boot_id)


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
    def clock(self) -> Clock:
        """The device's wall clock: something may set or slew it, which its map shows."""
        return Clock(f"{self.device.name}.realtime", tick_ns=1000.0, rho_ppm=500.0)

    async def collect(self, out: Outlet) -> None:
        shell = await self._shell()
        epoch = self.boots.epoch((await run(self.device, ["cat", BOOT_ID])).out.decode().strip())
        paths = await self._paths()
        fixed = {key: path for key, path in paths.items() if isinstance(path, Constant)}
        constants = await self._once(shell, fixed) if fixed else {}
        hand = Hand(self.sensor, out, self.clock, epoch)
        kept = {key: path for key, path in paths.items() if key not in constants}
        reading = _Reading(self, out, hand, kept, constants)
        first = await reading.first(shell)
        line = program(shell, reading.files, self.sensor.hz, jitter=first)
        try:
            async with self.device.channel(line) as channel:
                await reading.run(channel)
        finally:
            hand.close()
            out.fact("loop", {"shell": shell, "samples": reading.samples, "cpu_s": reading.cpu_s})

    async def _shell(self) -> str:
        done = await run(self.device, ["sh", "-c", probe()])
        if not (shell := done.out.decode().strip()):
            raise DeviceError(
                f"{self.device.name}: expected a shell with EPOCHREALTIME (mksh, or bash 5), got none; install bash"
            )
        return shell

    async def _paths(self) -> Mapping[str, str]:
        def find(pattern: str) -> list[str]:
            return trio.from_thread.run(self._find, pattern)

        paths = await trio.to_thread.run_sync(self.sensor.files, find)
        if not paths:
            raise DeviceError(
                f"{self.device.name}: expected files of {type(self.sensor).__name__} below {self.sensor.root}, got none"
            )
        return paths

    async def _find(self, pattern: str) -> list[str]:
        if not GLOB.fullmatch(pattern):
            raise DeviceError(f"expected a pattern of paths, got {pattern!r}")
        root = self.sensor.root.rstrip("/") + "/"
        script = f'for f in {quoted([root])}{pattern}; do [ -e "$f" ] && echo "$f"; done; :'
        found = (await run(self.device, ["sh", "-c", script])).out.decode(errors="replace").splitlines()
        return sorted(path.removeprefix(root) for path in found)

    async def _once(self, shell: str, paths: Mapping[str, str]) -> dict[str, str]:
        """Read files one time; those that cannot be read are left out."""
        seen = await self.sample(shell, [self.full(path) for path in paths.values()])
        return {key: text for key, text in zip(paths, seen.texts, strict=True) if text is not None}

    async def sample(self, shell: str, files: Sequence[str]) -> Seen:
        """Return one sample of the loop."""
        parser = Parser(len(files))
        async with self.device.channel(program(shell, files, 1.0, jitter=False)) as channel:
            while data := await channel.receive():
                for said in parser.feed(data):
                    if isinstance(said, Seen):
                        return said
            raise self.ended(await channel.status(), channel)

    def full(self, path: str) -> str:
        """Return a path as the device has it."""
        return f"{self.sensor.root.rstrip('/')}/{path}"

    def ended(self, status: int, channel: Channel) -> Gone:
        """Say that the loop ended though nobody asked it to."""
        return Gone(
            f"{self.device.name}: expected samples, got the end of the loop (exit status {status}): {channel.complaints()[-200:]}"
        )


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
    _asked: dict[int, int] = field(default_factory=dict)
    _answered: tuple[int, trio.Event] | None = None
    _number: int = 0

    @property
    def files(self) -> list[str]:
        return [self.sampled.full(path) for path in self.paths.values()]

    async def first(self, shell: str) -> bool:
        """Take one sample, which tells the rails; return whether to read at random moments of the slots."""
        self._take(await self.sampled.sample(shell, self.files))
        self._slot = -1
        return self.hand.jitter

    async def run(self, channel: Channel) -> None:
        """Take samples until cancelled; then read the clock once more, and end the loop in order."""
        parser = Parser(len(self.paths))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, channel, parser)
                await self._ask_often(channel)
        finally:
            with trio.move_on_after(FAREWELL_S, shield=True), suppress(Gone):
                await self._farewell(channel, parser)

    async def _receive(self, channel: Channel, parser: Parser) -> None:
        patience = max(SILENCE_S, 3 / self.sampled.sensor.hz)
        while True:
            with trio.move_on_after(patience) as waiting:
                data = await channel.receive()
            if waiting.cancelled_caught:
                raise Gone(f"{self.sampled.device.name}: expected samples, got none for {patience:g} s")
            if not data:
                raise self.sampled.ended(await channel.status(), channel)
            self._heard(data, parser)

    def _heard(self, data: bytes, parser: Parser) -> None:
        arrival = self.out.now()
        for said in parser.feed(data):
            if isinstance(said, Shown):
                self._shown(said, arrival)
            elif isinstance(said, Seen):
                self._take(said)

    def _take(self, seen: Seen) -> None:
        self.samples += 1
        missed, self._slot = seen.slot - self._slot - 1, seen.slot
        self.hand.take(Sample(seen.before, seen.after, self._files(seen.texts), missed))

    def _files(self, texts: Sequence[str | None]) -> Any:
        found = {
            key: Unreadable(path, "unreadable on the device") if text is None else text
            for (key, path), text in zip(self.paths.items(), texts, strict=True)
        }
        if found and all(isinstance(text, Unreadable) for text in found.values()):
            return Transient(f"{self.sampled.device.name}: none of its files can be read any more")
        return Files({**self.constants, **found})

    def _shown(self, shown: Shown, arrival: int) -> None:
        if (asked := self._asked.pop(shown.number, None)) is None:
            raise DeviceError(f"expected the answer to a clock request of ours, got one to {shown.number}")
        self.out.clock_reading(
            Reading(self.hand.clock, shown.at, not_before=asked, not_after=arrival, epoch=self.hand.epoch)
        )
        if self._answered is not None and self._answered[0] == shown.number:
            self._answered[1].set()

    async def _ask_often(self, channel: Channel) -> None:
        for _ in range(BURST):
            await self._answer_to(await self._ask(channel))
        while True:
            await trio.sleep(1.0)
            await self._answer_to(await self._ask(channel))

    async def _answer_to(self, number: int) -> None:
        if number in self._asked:  # else it came while the request was sent
            self._answered = number, trio.Event()
            with trio.move_on_after(ANSWER_S):
                await self._answered[1].wait()

    async def _ask(self, channel: Channel) -> int:
        """Ask for the device's time; return the request's number."""
        self._number += 1
        self._asked[self._number] = self.out.now()
        await channel.send(f"clock {self._number}\n".encode())
        return self._number

    async def _farewell(self, channel: Channel, parser: Parser) -> None:
        for _ in range(BURST):
            number = await self._ask(channel)
            with trio.move_on_after(ANSWER_S):
                while number in self._asked and (data := await channel.receive()):
                    self._heard(data, parser)
        ended = False
        while not ended:
            await channel.send(b"stop\n")
            with trio.move_on_after(ANSWER_S):
                while data := await channel.receive():
                    self._heard(data, parser)
                ended = True
        if isinstance(cost := parser.finish(), Ended):
            self.cpu_s = cost.cpu_s

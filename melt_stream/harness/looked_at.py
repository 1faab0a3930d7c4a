"""A device as it is now: whether it answers, what it is, its clock beside ours, and which of our sensors it has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import trio

from melt_stream import plugins
from melt_stream.devices import Device, Place, Sampled
from melt_stream.devices.ahead import ahead
from melt_stream.devices.identity import ask
from melt_stream.errors import DeviceError, MeltError, Transient
from melt_stream.failures import failures
from melt_stream.sensor import FileSensor

PATIENCE_S = 30.0
TRY = re.compile(r"; ((?:if [^;]*, )?try: .*)$", re.DOTALL)
"""How an error's words end where they say what to try."""
THERE = "there"
"""The state of a device that answers; of another, the kind of its error."""


@dataclass
class Look:
    """What one look at a device told; what is not known is None."""

    device: str
    link: str
    address: str
    state: str = "?"
    identity: dict[str, Any] = field(default_factory=dict)
    """The fields of ``Identity``."""
    loop: str | None = None
    """What runs the loop there."""
    ahead_s: float | None = None
    """How far its wall clock is ahead of ours."""
    ahead_bound_s: float | None = None
    sensors: dict[str, str] = field(default_factory=dict)
    """By plug-in: how many of its files can be read, and the rails that they tell."""
    error: str | None = None
    cure: str | None = None

    def failed(self, why: BaseException) -> None:
        """Say what was wrong, and what to try."""
        if not isinstance(why, MeltError):
            raise why
        self.error = str(why)
        if (found := TRY.search(self.error)) is not None:
            self.error, self.cure = self.error[: found.start()], found[1].removeprefix("try: ")
        if self.state != THERE:
            self.state = type(why).__name__


async def look(
    device: Device, link: str, address: str, sensors: Iterable[str] = (), patience_s: float = PATIENCE_S
) -> Look:
    """Ask a device all of that, and which of ``sensors`` it has. Never raises for what the device does, or does not."""
    place, told = Place(device), Look(device.name, link, address)
    with failures(told.failed), trio.move_on_after(patience_s) as waiting:
        told.identity = asdict(await ask(device))
        told.state = THERE
        told.loop = (await place.runner()).kind
        if (clock := await ahead(place)) is not None:
            told.ahead_s, told.ahead_bound_s = clock
        await _sense(place, told, sensors)
    if waiting.cancelled_caught:
        told.failed(Transient(f"expected all answers within {patience_s:g} s, got some"))
    return told


async def _sense(place: Place, told: Look, sensors: Iterable[str]) -> None:
    for name in sensors:
        sensor = plugins.load(plugins.COLLECTORS, name)()
        try:
            found = await Sampled(sensor, place.device, place.boots).found()
        except DeviceError as exc:
            if isinstance(exc, Transient):
                raise
            continue  # it has none of its files
        if found.readable:
            rails = ", ".join(rail.name for rail in found.rails)
            told.sensors[name] = f"{found.readable} of {found.files} files" + (f": {rails}" if rails else "")


def sensors() -> tuple[str, ...]:
    """The plug-ins that are sensors of files and nothing else, and need no settings."""
    return tuple(name for name in plugins.names(plugins.COLLECTORS) if _is_sensor(name))


def _is_sensor(name: str) -> bool:
    try:
        made = plugins.load(plugins.COLLECTORS, name)()
    except (MeltError, ImportError, TypeError):  # its driver is not there, or it needs settings
        return False
    return isinstance(made, FileSensor) and type(made).look is FileSensor.look

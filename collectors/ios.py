"""The battery of an iPhone or iPad, asked through the program ``pymobiledevice3``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, NamedTuple

import trio
from annotated_types import Gt, Le

from melt_stream.clock import Clock, Reading, ReadingKind
from melt_stream.collector import Health
from melt_stream.errors import ConfigError, DeviceError, Transient
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, PERCENT, A, Unit, V, W

CLOCK = Clock("gauge", tick_ns=1e9, rho_ppm=500.0)
"""The iPhone's wall clock in whole seconds, by which its gauge is stamped (``UpdateTime``)."""
PERIOD_S = 20.0
"""How often the gauge is refreshed, as seen on an iPhone 14."""
ANSWER_S = 30.0
PATIENCE = 5
"""Answers in a row that are none, after which the collector gives up."""
LARGEST = 4 << 20
RAIL = Rail(
    "battery",
    "battery",
    "gauge",
    instrument="gauge",
    source="fuel gauge; nothing is published of its accuracy",
)


class Gauge(NamedTuple):
    """What the IORegistry says of the battery."""

    update: int
    """When it was refreshed, whole seconds since 1970 by the iPhone."""
    row: dict[str, Any]


@dataclass
class Ios:
    """``pymobiledevice3 diagnostics battery single``, once and again: a row whenever the gauge was refreshed, each about 20 s.

    The program is GPL and no part of this one: install it apart. Current and power are null while a charger is connected. Raises
    ``ConfigError`` where there is no such program, ``DeviceError`` where the first answer is none, ``Transient`` after five in a row.
    """

    _: KW_ONLY
    udid: str = ""
    """Which iPhone, where several are connected."""
    hz: Annotated[float, Gt(0), Le(1)] = 0.5
    """Questions a second at most; the program takes a second or two for each."""
    command: tuple[str, ...] = ("pymobiledevice3",)
    """The program: its name on PATH, or its path; ``["uvx", "pymobiledevice3"]``."""
    optional: bool = False
    """True where its failure does not end the run."""

    stream = Stream(
        "ios_battery", clock=CLOCK, period_ns=PERIOD_S * 1e9, rail=str, volts=V, amps=A, charging=bool, plugged=bool, capacity=PERCENT,
        remaining=Unit("mA.h"), celsius=CELSIUS, load=W, reported=int,
    )  # fmt: skip
    _shown: int | None = field(default=None, init=False, repr=False)
    """What the gauge's clock showed last."""

    @staticmethod
    def example() -> dict[str, Any]:
        script = 'printf \'{"UpdateTime": %s, "Voltage": 3908, "InstantAmperage": -412, "Temperature": 2950}\' "$(date +%s)"'
        return {"kind": "plain", "config": {"command": ["sh", "-c", script], "hz": 1.0}}

    def prepare(self) -> None:
        """Raise ``ConfigError`` where the program is not there."""
        if not (there := self.check()).ok:
            raise ConfigError(f"ios: {there.what}; try: {there.cure}")

    def check(self) -> Health:
        """Say whether the program is there; asks no iPhone."""
        if (found := shutil.which(self.command[0])) is None:
            return Health(False, f"there is no program {self.command[0]!r}", "pipx install pymobiledevice3")
        return Health(True, found)

    async def collect(self, out: Outlet) -> None:
        out.rail(self.stream, RAIL)
        asked: int | None = None
        bad = 0
        while True:
            before = out.now()
            try:
                got = await self._ask()
            except DeviceError as exc:
                bad += 1
                if self._shown is None:
                    raise
                if bad >= PATIENCE:
                    raise Transient(str(exc)) from exc
            else:
                self._tell(out, got, asked, failed=bad > 0)
                asked, bad = before, 0
            await trio.sleep(max(0.0, 1 / self.hz - (out.now() - before) / 1e9))

    def _tell(self, out: Outlet, got: Gauge, since: int | None, *, failed: bool) -> None:
        """Make a row of a refresh, which came after ``since``, when the last question was put that was answered."""
        if self._shown is not None and got.update <= self._shown:
            return
        if failed and self._shown is not None:
            out.gap(self.stream, self._shown, got.update, "the iPhone did not answer")
        self._shown = got.update
        kind: ReadingKind = "arrival" if since is None else "round_trip"
        out.clock_reading(Reading(CLOCK, got.update, not_before=since, not_after=out.now(), kind=kind))
        out.row(self.stream, tick=got.update, **got.row)

    async def _ask(self) -> Gauge:
        words = [*self.command, "diagnostics", "battery", "single"]
        words += ["--udid", self.udid] if self.udid else []
        done: subprocess.CompletedProcess[bytes] | None = None
        with trio.move_on_after(ANSWER_S):
            done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)
        if done is None:
            raise DeviceError(f"ios: expected an answer of {words[0]} within {ANSWER_S:g} s, got none")
        if (got := gauge(done.stdout)) is None:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:] or "nothing"
            raise DeviceError(
                f"ios: expected JSON with UpdateTime from {' '.join(words)}, got exit status {done.returncode} and: {said}; "
                "is the iPhone connected, unlocked and trusted?"
            )
        return got


def gauge(output: bytes) -> Gauge | None:
    """Read what the program prints: the registry's entry IOPMPowerSource as JSON; None where that is not all there."""
    if len(output) > LARGEST:
        return None
    text = output.decode(errors="replace")
    try:
        said = json.loads(text[text.index("{") :])
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(said, dict)
        or (update := _whole(said, "UpdateTime")) is None
        or not 0 < update < 1 << 40
    ):
        return None
    amperage, plugged = _whole(said, "InstantAmperage"), _flag(said, "ExternalConnected")
    if amperage is not None:  # some iOS versions print its 64 bits unsigned
        amperage = (amperage + (1 << 63)) % (1 << 64) - (1 << 63)
    drains = amperage is not None and amperage < 0 and not plugged
    telemetry = said.get("PowerTelemetryData")
    load = _whole(telemetry, "SystemLoad") if isinstance(telemetry, dict) else None
    return Gauge(update, {
        "rail": RAIL.name, "volts": _scaled(said, "Voltage", 1e-3), "amps": -amperage / 1000 if drains and amperage is not None else None,
        "charging": _flag(said, "IsCharging"), "plugged": plugged, "capacity": _scaled(said, "CurrentCapacity", 1.0),
        "remaining": _scaled(said, "AppleRawCurrentCapacity", 1.0), "celsius": _scaled(said, "Temperature", 0.01),
        "load": None if load is None else load / 1000, "reported": amperage,
    })  # fmt: skip


def _whole(said: Mapping[str, Any], key: str) -> int | None:
    value = said.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64 else None


def _scaled(said: Mapping[str, Any], key: str, scale: float) -> float | None:
    value = _whole(said, key)
    return None if value is None else value * scale


def _flag(said: Mapping[str, Any], key: str) -> bool | None:
    value = said.get(key)
    return value if isinstance(value, bool) else None

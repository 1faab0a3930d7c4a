"""What MLCommons' power client and server note down: exchanges stamped on both sides, phases, the meter.

``client.json`` and ``server.json`` hold, in seconds since 1970 of the own clock, when each command was sent and
answered, or received and answered. Their ``timezone`` ignores daylight saving, so that zones are found here from
stamps that stand both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from melt_stream.clock import Clock, Reading
from melt_stream.collectors._files import read_json, seconds_to_ns
from melt_stream.collectors._ptdaemon import local_ns
from melt_stream.errors import DataError

MAX_EXCHANGES = 256
WINDOWS_TICK_NS = 15_625_000
"""Step of a Windows clock as ``time.time()`` shows it."""
QUARTER_NS = 900_000_000_000
"""Zones are multiples of a quarter of an hour."""
_QUICK_NS = 1_000_000_000
_FURTHEST_NS = 26 * 3_600_000_000_000
_SESSION = re.compile(r"(\d{4}-\d{2}-\d{2})_(\d{2})-(\d{2})-(\d{2})")
_LOG_STAMP = re.compile(r"\S+ (\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}),(\d{3}) ")
_GO = re.compile(r"Go,(\d{1,7}),")
_DC_TYPES = frozenset({508, 549, 586})


class Exchange(NamedTuple):
    """A command and its reply; times in ns since 1970 of one side's clock."""

    command: str
    sent: int
    answered: int


@dataclass
class Side:
    """One side's file; empty where there is none."""

    exchanges: list[Exchange] = field(default_factory=list)
    phases: dict[str, list[int]] = field(default_factory=dict)
    """By mode (``ranging``, ``testing``): session asked for, work started, work ended, session ended."""
    session: str = ""
    meter: str = ""
    """PTDaemon's answer to Identify."""
    period_ms: int | None = None
    dc: bool = False


def read_side(path: Path) -> Side:
    """Return what ``client.json`` or ``server.json`` says; :class:`Side` without anything where it is absent."""
    if not path.exists():
        return Side()
    data = _dict(read_json(path), f"{path}")
    side = Side(session=str(data.get("session_name", "")))
    messages = _list(data.get("messages", []), f"{path}, messages")
    if len(messages) > MAX_EXCHANGES:
        raise DataError(f"{path}, messages: expected at most {MAX_EXCHANGES}, got {len(messages)}")
    for k, message in enumerate(messages):
        where = f"{path}, messages[{k}]"
        fields = _dict(message, where)
        times = [seconds_to_ns(fields.get(name), f"{where}.{name}") for name in ("cmd_time", "reply_time")]
        side.exchanges.append(Exchange(str(fields.get("cmd", "")), *times))
    for mode, stamps in _dict(data.get("phases", {}), f"{path}, phases").items():
        where = f"{path}, phases.{mode}"
        firsts = [_list(stamp, where)[:1] for stamp in _list(stamps, where)]
        side.phases[mode] = [seconds_to_ns(first[0] if first else None, where) for first in firsts]
    _meter(side, data, path)
    return side


def _meter(side: Side, data: dict[str, Any], path: Path) -> None:
    messages = _list(data.get("ptd_messages", []), f"{path}, ptd_messages")
    for message in [m for entry in messages for m in (entry if isinstance(entry, list) else [entry])]:
        fields = _dict(message, f"{path}, ptd_messages")
        command, reply = str(fields.get("cmd", "")), str(fields.get("reply", ""))
        if command == "Identify" and not side.meter:
            side.meter = reply[:1000]
        if (go := _GO.match(command)) and int(go[1]):
            side.period_ms = int(go[1])
    config = data.get("ptd_config")
    kind = config.get("device_type") if isinstance(config, dict) else None
    side.dc = kind in _DC_TYPES if isinstance(kind, int) else side.meter.split(",")[0].endswith("_DC")


def _dict(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected an array, got {type(value).__name__}")
    return value


def server_readings(clock: Clock, client: Side, server: Side, base: int) -> list[Reading]:
    """Return what the exchanges say of the server's clock; ``base`` (ns since 1970) is 0 on both axes.

    An exchange answered within a second is a round trip. Of a longer one the command was received after it was sent,
    and the reply sent before it was received; what lay between was work. Both hosts are set by NTP before each run,
    and may step then: where an exchange proves that they did, the epoch rises.
    """
    readings: list[Reading] = []
    current: list[Reading] = []
    width = tick_width(server)
    for asked, served in zip(client.exchanges, server.exchanges, strict=False):
        if asked.command != served.command:
            break
        epoch = current[-1].epoch if current else 0
        new = list(_exchange_readings(clock, asked, served, width, base, epoch))
        if current and not consistent(current, new):
            new = [replace(reading, epoch=epoch + 1) for reading in new]
            current = []
        current += new
        readings += new
    return readings


def epoch_at(readings: list[Reading], tick: int) -> int:
    """Return the epoch in which the clock showed ``tick``: the last one that had begun."""
    begun = [reading.epoch for reading in readings if reading.tick <= tick]
    return max(begun, default=0)


def consistent(old: list[Reading], new: list[Reading]) -> bool:
    """Tell whether one clock that runs within its ``rho_ppm`` of the host's can have shown both."""
    rho = max(reading.clock.rho_ppm for reading in [*old, *new]) * 1e-6
    return _in_order(old, new, rho) and _in_order(new, old, rho)


def _in_order(some: list[Reading], others: list[Reading], rho: float) -> bool:
    """Tell whether no lower limit of ``some`` lies above an upper limit of ``others``."""
    lows = [(r.not_before - r.tick - r.resolution, r.tick) for r in some if r.not_before is not None]
    highs = [(r.not_after - r.tick, r.tick) for r in others if r.not_after is not None]
    return all(low - high <= rho * abs(t - u) for low, t in lows for high, u in highs)


def _exchange_readings(
    clock: Clock, asked: Exchange, served: Exchange, width: int, base: int, epoch: int
) -> Iterator[Reading]:
    low, high = asked.sent - base, asked.answered - base
    if high - low < _QUICK_NS:
        for stamp in sorted({served.sent, served.answered}):
            yield Reading(clock, stamp - base, width, low, high, epoch)
    else:
        yield Reading(clock, served.sent - base, width, low, None, epoch, "cause")
        yield Reading(clock, served.answered - base, width, None, high, epoch, "arrival")


def tick_width(server: Side) -> int:
    """Return the step of the server's clock, ns.

    A clock that shows a command's arrival and its reply at the same 100 ns is Windows' coarse one; its step may be
    finer at times, but that is never known.
    """
    coarse = any(exchange.sent == exchange.answered for exchange in server.exchanges)
    return WINDOWS_TICK_NS if coarse else 1000


def nearest_zone(local: int, utc: int) -> int:
    """Return how far a wall clock is ahead of UTC, from one moment shown both ways."""
    return round((local - utc) / QUARTER_NS) * QUARTER_NS


def session_zone(server: Side) -> int | None:
    """The server's zone, from the session's name, which is its local time when the client asked for it."""
    asked = next((e.answered for e in server.exchanges if e.command.startswith("new,")), None)
    found = _SESSION.match(server.session)
    if asked is None or found is None:
        return None
    return nearest_zone(local_ns(f"{found[1]} {found[2]}:{found[3]}:{found[4]}", "session_name"), asked)


def log_zone(lines: Iterable[tuple[int, str]], side: Side) -> int | None:
    """The client's zone, from the first stamp of ``client.log`` and its first command."""
    for _, line in lines:
        if (found := _LOG_STAMP.match(line)) and side.exchanges:
            return nearest_zone(local_ns(f"{found[1]}.{found[2]}", "client.log"), side.exchanges[0].sent)
    return None


def fitting_zone(
    first: int, last: int, phase: list[int], stop: int, candidates: Iterable[int | None], where: str
) -> int:
    """Return the first zone that puts local times ``first`` to ``last`` between work's start and ``phase[stop]``.

    Containers, and loadgen of later versions, log in another zone than the host. Where no candidate fits, the one
    that puts ``first`` soonest after the work's start.
    """
    known = [zone for zone in candidates if zone is not None]
    if len(phase) <= stop:
        return known[0] if known else 0
    slack = 2_000_000_000
    for zone in known:
        if phase[1] - slack <= first - zone and last - zone <= phase[stop] + slack:
            return zone
    zone = (first - phase[1] + slack) // QUARTER_NS * QUARTER_NS
    if abs(zone) > _FURTHEST_NS:
        raise DataError(
            f"{where}: expected times of this session, got them {zone / 3.6e12:.0f} h off; is it another run's?"
        )
    return zone

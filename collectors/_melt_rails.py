"""JetsonLab's logs: rails and zones of the board on its own clock, and MELT's rule over them, rail by rail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from melt_stream.collectors._files import numbered_lines
from melt_stream.collectors._jetson_rails import TOTAL, parent, parts_of_total, whole, with_total
from melt_stream.collectors._melt_board import FILE_LIMIT, BoardLog, Round, Zone
from melt_stream.collectors._melt_rule import Rule, Window
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Stream
from melt_stream.units import CELSIUS, A, V, W

HOLE = 2.5
"""Periods without a round, after which some are missing; no round takes longer to read."""
_AHEAD = 512
"""Rounds looked at for the period."""
_NOMINAL_NS = 10_000_000
_BLOCK = 4096
_MOST_RAILS = 64
SOURCE = "the board's INA3221s through JetsonLab's monitor; their steps and accuracy are not in it"


def first_moment(path: Path) -> int | None:
    """Return the first stamp of a log, ns since 1970; None where it has none."""
    for found in BoardLog(path).read(numbered_lines(path, FILE_LIMIT)):
        return found.before if isinstance(found, Round) else found.at
    return None


@dataclass
class Board:
    """The streams of a run's logs; all have the rails and the period of the first one."""

    out: Outlet
    base: int
    """ns since 1970 that is the run's 0."""
    totals: tuple[str, ...] = ()
    account: str | None = None
    """The rail that is the board's; ``total`` where it is a sum."""
    period: float = _NOMINAL_NS
    power: Stream | None = None
    thermal: Stream | None = None
    last: int | None = None
    """When the last round was placed."""
    counts: int = 0
    junk: int = 0

    async def log(self, path: Path, windows: Sequence[Window]) -> dict[str, Rule]:
        """Write one log; return MELT's rule by rail. Raises ``DataError`` where it holds no rail, or times go back."""
        log, rules = BoardLog(path), _Rules(windows)
        found = log.read(numbered_lines(path, FILE_LIMIT))
        begin = list(islice(found, 8 * _AHEAD))
        if self.power is None:
            self._declare(begin, path)
        for count, one in enumerate(chain(begin, found)):
            if isinstance(one, Zone):
                assert self.thermal is not None
                self.out.row(
                    self.thermal, tick=one.at - self.base, t_u=None, zone=one.name, celsius=one.celsius
                )
            else:
                self._row(one, path)
                rules.add(one)
            if count % 1024 == 0:
                await self.out.room()
        rules.flush()
        self.counts, self.junk = self.counts + log.counts, self.junk + log.junk
        return rules.by_rail

    def joules(self, rules: dict[str, Rule], k: int) -> float | None:
        """MELT's energy of window ``k`` on the board's rail, J."""
        names = self.totals or ((self.account,) if self.account else ())
        found = [rules[name].joules(k) if name in rules else None for name in names]
        return sum(one for one in found if one is not None) if found and None not in found else None

    def _declare(self, begin: list[Round | Zone], path: Path) -> None:
        rounds = [one for one in begin if isinstance(one, Round)]
        names = list(dict.fromkeys(name for one in rounds for name in one.values))
        if not names or len(names) > _MOST_RAILS:
            raise DataError(
                f"{path}: expected lines like '1709741000123456789 current_VDD_IN: 200 mA' of up to {_MOST_RAILS} rails, got {len(names)} rails"
            )
        steps = np.diff([one.before for one in rounds[:_AHEAD]])
        self.period = float(np.median(steps[steps > 0])) if (steps > 0).any() else _NOMINAL_NS
        self.power = Stream("power", period_ns=self.period, rail=str, watts=W, volts=V, amps=A).as_polled()
        self.thermal = Stream("thermal", period_ns=self.period, zone=str, celsius=CELSIUS).as_polled()
        self.totals = parts_of_total(names, None, str(path))
        self.account = whole(names, self.totals)
        for name in [*names, *([TOTAL] if self.totals else [])]:
            lies_in = parent(name, names, self.account)
            boundary: Any = "board" if name == self.account else "rail"
            self.out.rail(
                self.power, Rail(name, boundary, "gauge", parent=lies_in, instrument="gauge", source=SOURCE)
            )

    def _row(self, one: Round, path: Path) -> None:
        """Write one round, in the middle of when it may have been read."""
        assert self.power is not None
        least = one.before - round(HOLE * self.period)
        after = max(one.after if one.after is not None else least, least)
        tick, half = (after + one.before) // 2 - self.base, (one.before - after + 1) // 2
        if self.last is not None and tick < self.last:
            raise DataError(
                f"{path}: expected a log that begins after the one of the iteration before, got one {(self.last - tick) / 1e9} s earlier; was the clock set?"
            )
        if self.last is not None and tick - self.last > HOLE * self.period:
            lost = max(1, round((tick - self.last) / self.period) - 1)
            self.out.gap(self.power, self.last + round(self.period), tick, "no rounds in the log", lost=lost)
        self.last = tick
        found = {name: watts for name in one.values if (watts := one.watts(name)) is not None}
        for name, watts in with_total(found, self.totals).items():
            read = one.values.get(name, {})
            volts, amps = (read[n] / 1000 if n in read else None for n in ("voltage", "current"))
            self.out.row(self.power, tick=tick, t_u=half, rail=name, watts=watts, volts=volts, amps=amps)


@dataclass
class _Rules:
    """MELT's rule on a log's lines: each current counts with the next voltage of its rail, at the time of its own line."""

    windows: Sequence[Window]
    by_rail: dict[str, Rule] = field(default_factory=dict)
    _waiting: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By rail: a current's time and mA, whose voltage comes in the next round."""
    _rows: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)

    def add(self, one: Round) -> None:
        for rail, read in one.values.items():
            if rail not in one.stamps or (rail not in self.by_rail and len(self.by_rail) >= _MOST_RAILS):
                continue
            at_volts, at_amps = one.stamps[rail]
            self.by_rail.setdefault(rail, Rule(self.windows))
            if "voltage" in read and rail in self._waiting:
                at, amps = self._waiting.pop(rail)
                self._rows.setdefault(rail, []).append(
                    (at / 1e9, at_volts / 1e9, amps, read["voltage"] / 1000)
                )
                if len(self._rows[rail]) >= _BLOCK:
                    self._feed(rail)
            if "current" in read:
                self._waiting[rail] = at_amps, read["current"]

    def flush(self) -> None:
        for rail in self._rows:
            self._feed(rail)

    def _feed(self, rail: str) -> None:
        rows = np.array(self._rows[rail], np.float64).reshape(-1, 4)
        self._rows[rail] = []
        self.by_rail[rail].feed(rows[:, 0], rows[:, 2], rows[:, 3], until=rows[:, 1])

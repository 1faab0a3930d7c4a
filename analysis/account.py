"""The account: which one rail is a device's total. Others are cross-checks, never added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melt_stream.errors import ConfigError

RANKS = ("meter", "counter", "mean", "gauge", "estimated")
"""Best first: an external instrument, an energy counter, averages, instantaneous values, a model."""
OUTERMOST = ("wall", "dc_in", "battery", "board", "package", "rail")


@dataclass(frozen=True)
class Candidate:
    """A rail of a device, and how much of the run it covered."""

    sensor: str
    rail: str
    boundary: str
    kind: str
    instrument: str
    estimated: bool
    coverage: float

    @property
    def label(self) -> str:
        """What a recipe's ``account`` calls it."""
        return f"{self.sensor}/{self.rail}"


def choose(device: str, rails: Sequence[Candidate], account: Mapping[str, str]) -> Candidate | None:
    """Return the device's total, or None where it has no rail.

    The recipe's choice first; else by instrument, then the outermost boundary, then most coverage, then name; rails
    that covered nothing come last. Raises ``ConfigError`` where the recipe names a rail that the device does not have.
    """
    wanted = account.get(device)
    if wanted is not None:
        for rail in rails:
            if wanted in (rail.label, rail.sensor, rail.rail):
                return rail
        raise ConfigError(
            f"account: {device} = {wanted!r}: expected one of {sorted(r.label for r in rails)}, "
            "as sensor/rail; did its collector measure anything?"
        )
    return min(rails, key=_order, default=None)


def _order(rail: Candidate) -> tuple[bool, int, int, float, str]:
    where = OUTERMOST.index(rail.boundary) if rail.boundary in OUTERMOST else len(OUTERMOST)
    return rail.coverage <= 0, _rank(rail), where, -round(rail.coverage, 2), rail.label


def _rank(rail: Candidate) -> int:
    """Rank by instrument; a meter is one whatever its samples mean. ``delta`` counts as what measures it."""
    if rail.estimated or rail.instrument in ("model", "estimated"):
        return RANKS.index("estimated")
    if rail.instrument == "meter":
        return RANKS.index("meter")
    return RANKS.index({"counter": "counter", "delta": "counter", "mean": "mean"}.get(rail.kind, "gauge"))

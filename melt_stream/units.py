"""Units of measurement, by their UCUM code (https://ucum.org)."""

from __future__ import annotations

from typing import NamedTuple

_PREFIXES = {
    "": 1.0,
    "p": 1e-12,
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}
_BASES = ("W", "V", "A", "J", "C", "s", "Hz", "Cel", "By", "Ohm")
_NON_SI = {
    "mA.h": ("C", 3.6),
    "W.h": ("J", 3600.0),
    "mW.h": ("J", 3.6),
    "kW.h": ("J", 3.6e6),
}


class Unit(NamedTuple):
    """A unit of measurement, such as ``Unit("mW")``."""

    code: str

    def to(self, base: Unit) -> float:
        """Return the factor from this unit to ``base``: ``Unit("mW").to(W)`` is 0.001.

        Raises ``ValueError`` where the two do not measure the same quantity.
        """
        mine, theirs = _resolve(self.code), _resolve(base.code)
        if mine[0] != theirs[0]:
            raise ValueError(f"expected a unit convertible to {base.code!r}, got {self.code!r}")
        return mine[1] / theirs[1]


def _resolve(code: str) -> tuple[str, float]:
    if code in _NON_SI:
        return _NON_SI[code]
    for base in _BASES:
        prefix = code.removesuffix(base)
        if code.endswith(base) and prefix in _PREFIXES:
            return base, _PREFIXES[prefix]
    return code, 1.0


W, V, A, J, C = Unit("W"), Unit("V"), Unit("A"), Unit("J"), Unit("C")
S, NS, HZ = Unit("s"), Unit("ns"), Unit("Hz")
CELSIUS, BYTE, PERCENT, ONE = Unit("Cel"), Unit("By"), Unit("%"), Unit("1")

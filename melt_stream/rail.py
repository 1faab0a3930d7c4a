"""Rails: what a power stream measures, where in the circuit, and how well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Boundary = Literal["wall", "dc_in", "battery", "board", "package", "rail"]
Kind = Literal["gauge", "mean", "delta", "counter"]
Anchor = Literal["start", "centre", "end"]


@dataclass(frozen=True)
class Rail:
    """One measured supply of one device; a row of the manifest.

    The rail's stream holds its values in columns of these names: ``watts``, or ``volts`` and ``amps``, for kinds
    ``gauge`` and ``mean``; ``energy`` (J, uJ, ...) or ``charge`` (C, mA.h, ...) for kinds ``delta`` and
    ``counter``. A stream with several rails has a ``rail`` column that holds their names.
    """

    name: str
    boundary: Boundary
    kind: Kind
    parent: str | None = None
    """Name of the rail this one is nested in."""
    window_ns: float | None = None
    """For ``mean``: the length of the averaging window; None where it is the time since the last sample."""
    anchor: Anchor = "end"
    """For ``mean`` and ``delta``: where in its window a sample is stamped."""
    gain: float | None = None
    """Standard uncertainty of the gain, relative (0.005 = 0.5 %); None where unknown."""
    offset: float | None = None
    """Standard uncertainty of the zero, in W."""
    resolution: float | None = None
    """Smallest step of a value, in W (J for delta and counter)."""
    noise: float | None = None
    """Standard deviation of one sample, in W (J for delta)."""
    modulus: float | None = None
    """For ``counter``: the count at which it wraps to 0, in the column's unit."""
    nominal_volts: float | None = None
    """For ``charge`` without ``volts``: the voltage that turns coulombs into joules."""
    full_scale: float | None = None
    """Reading at or above which a sample is saturated, in W."""
    estimated: bool = False
    """True where a model stands in for a sensor; its joules are called estimated everywhere."""
    instrument: str = ""
    """``meter`` where an external instrument measures; else what does: ``counter``, ``gauge``, ``model``."""
    source: str = ""
    """Where the accuracy figures come from: a data sheet, a reference."""

    @property
    def goes_on(self) -> bool:
        """As :func:`goes_on` has it."""
        return goes_on(self.kind, self.window_ns, self.anchor)


def goes_on(kind: str | None, window_ns: float | None, anchor: str | None) -> bool:
    """Tell whether a late reading loses nothing: a counter, and a mean over all the time since the last sample."""
    return kind == "counter" or (kind == "mean" and not window_ns and anchor == "end")

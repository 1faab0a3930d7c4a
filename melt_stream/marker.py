"""Markers: a known on/off code, played as load, that analysis finds again in a rail's power.

What is recorded is when each edge was carried out, so that analysis needs to know nothing else of the code.
"""

from __future__ import annotations

from melt_stream.clock import HOST, Clock
from melt_stream.stream import Stream
from melt_stream.units import NS

NAME = "marker"
"""Instance name, phase and role."""

_TAPS = {
    31: ((5, 2), (5, 4, 3, 2)),
    63: ((6, 1), (6, 5, 2, 1)),
    127: ((7, 3), (7, 3, 2, 1)),
    511: ((9, 4), (9, 6, 4, 3)),
}
"""By length: exponents of primitive polynomials, in preferred pairs (Gold, IEEE Trans. IT 13 (1967) 619), so that
the codes of two plays that follow each other are not mistaken for one another."""


def code(chips: int = 127, play: int = 0) -> list[bool]:
    """Return the m-sequence of so many chips (31, 63, 127 or 511) for this play; it begins with on."""
    taps = _TAPS[chips][play % 2]
    state = [True] * max(taps)
    found = []
    for _ in range(chips):
        found.append(state[-1])
        state = [sum(state[tap - 1] for tap in taps) % 2 == 1, *state[:-1]]
    return found


def edges(chips: int, chip_ns: float, play: int = 0) -> list[int]:
    """Return when the code changes, in ns since its start: on, off, on, ..., off."""
    levels = [False, *code(chips, play), False]
    return [round(k * chip_ns) for k in range(chips + 1) if levels[k] != levels[k + 1]]


def marker_edges(clock: Clock = HOST) -> Stream:
    """Return the stream of edges on ``clock``: a row an edge.

    ``play`` counts the plays of an instance from 0; ``rise`` is how long the power takes to rise, null where unknown.
    """
    return Stream("edges", clock=clock, role=NAME, play=int, on=bool, rise=NS)


EDGES = marker_edges()

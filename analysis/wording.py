"""Numbers and sentences as people read them: the same words in the terminal and on the page."""

from __future__ import annotations

import math

NOTHING = "\N{EN DASH}"
"""What stands where nothing is known; never 0."""


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` significant ones, without an exponent between 1e-4 and 1e6."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if not -5 < size < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(digits - 1 - size, 0)}f}"


def measured(value: float | None, u: float | None, digits: int = 3) -> str:
    """``12.34 ± 0.05``: the uncertainty with two digits, the value to the same place."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if u is None or not math.isfinite(u) or u <= 0:
        return f"{number(value, digits)} ± ?" if u is None or u != 0 else number(value, digits)
    places = 1 - math.floor(math.log10(u))
    if not -6 < places < 8:
        return f"{value:.{digits}e} ± {u:.1e}"
    rounded = round(value, places) + 0.0  # no -0.0
    return f"{rounded:.{max(places, 0)}f} ± {round(u, places):.{max(places, 0)}f}"


def percent(share: float | None) -> str:
    """``99.7 %``; never rounded up to 100 %, nor down to 0 %."""
    if share is None or not math.isfinite(share):
        return NOTHING
    text = f"{100 * share:.1f}"
    if text == "100.0":
        return "100 %" if share >= 1 else "> 99.9 %"
    return "< 0.1 %" if text == "0.0" and share > 0 else f"{text} %"


def seconds(value: float | None) -> str:
    """``1.23 s``, ``45.6 ms`` or ``7.89 µs``."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(value) * factor >= 1 or value == 0:
            return f"{number(value * factor)} {unit}"
    return f"{number(value * 1e9)} ns"


def count(value: int, noun: str) -> str:
    """``1 token``, ``2,000 tokens``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}"

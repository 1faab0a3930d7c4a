"""What nothing else beats."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float | None]], up: Sequence[bool]) -> list[bool]:
    """Tell of each point whether no other is at least as good in every dimension and better in one.

    ``up`` says of each dimension whether more is better. A point with an unknown value is never on the front, and beats none.
    """
    signs = [1.0 if more else -1.0 for more in up]
    good = [
        None
        if None in point
        else [sign * value for sign, value in zip(signs, point, strict=True) if value is not None]
        for point in points
    ]
    return [
        mine is not None and not any(other is not None and _beats(other, mine) for other in good)
        for mine in good
    ]


def _beats(other: Sequence[float], mine: Sequence[float]) -> bool:
    pairs = list(zip(other, mine, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

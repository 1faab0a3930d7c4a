"""Which rail of a Jetson is the whole board, and which lie in which: what its files and tools do not say.

From NVIDIA's tegrastats appendix and boards' schematics as jetson-stats and others tell them; no board was here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from melt_stream.errors import DataError

INPUTS = ("VDD_IN", "POM_5V_IN", "VIN")
"""Rails that supply all the others: Orin Nano and NX, Xavier NX, TX2; Nano; AGX Thor."""
SUMS = {"AGX Orin": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")}
"""Rails that supply a board together, where it has none for all."""
FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""Rails that lie in another one of their board."""
TOTAL = "total"
"""Name of the rail that is a sum."""


def parts_of_total(names: Collection[str], total: tuple[str, ...] | None, where: str) -> tuple[str, ...]:
    """Return the rails whose sum is the board's power; empty where a rail measures it, or nobody knows.

    ``total`` is what somebody configured; None: by the tables above. Raises ``DataError`` where it names a rail that is not there.
    """
    if total is not None:
        if missing := set(total) - set(names):
            raise DataError(
                f"{where}: expected the rails {', '.join(sorted(missing))}, got {', '.join(sorted(names))}"
            )
        return total
    if set(names) & set(INPUTS):
        return ()
    return next((parts for parts in SUMS.values() if set(parts) <= set(names)), ())


def whole(names: Collection[str], parts: tuple[str, ...]) -> str | None:
    """Return the rail that is the whole board; None where there is none. A sum that is asked for stands above an input."""
    return TOTAL if parts else next((name for name in INPUTS if name in names), None)


def parent(name: str, names: Collection[str], board: str | None) -> str | None:
    """Return the rail that a rail lies in: one of its board's, or the whole; None for the whole."""
    if name == board:
        return None
    return fed if (fed := FED_BY.get(name)) in names else board


def with_total(watts: Mapping[str, float], parts: tuple[str, ...]) -> dict[str, float]:
    """Return the rails with their ``total``, where all of its parts are there."""
    if parts and set(parts) <= watts.keys():
        return {**watts, TOTAL: sum(watts[name] for name in parts)}
    return dict(watts)

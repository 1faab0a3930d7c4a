"""The runs that a study wants, in the order in which they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from melt_stream.harness.study.cells import Cell
from melt_stream.harness.study.rules import Order


@dataclass(frozen=True)
class Slot:
    """One run that is wanted: a repetition of a cell, or one of its warm-ups."""

    cell: Cell
    repetition: int
    """From 1; warm-ups count by themselves."""
    warmup: bool = False

    @property
    def key(self) -> tuple[str, bool, int]:
        """What tells it from others of its study."""
        return self.cell.id, self.warmup, self.repetition


def slots(cells: Sequence[Cell], order: Order, seed: int) -> list[Slot]:
    """Return all runs of some cells in order; a cell's warm-ups come right before the first of its repetitions.

    ``shuffled`` goes by a hash of the seed and the run, so that a study that grows keeps the order of what it had.
    """
    repetitions = [Slot(cell, number) for cell in cells for number in range(1, cell.rules.repeat + 1)]
    if order == "interleaved":
        repetitions.sort(key=lambda slot: slot.repetition)
    elif order == "shuffled":
        repetitions.sort(key=lambda slot: _drawn(slot, seed))
    made, begun = list[Slot](), set[str]()
    for slot in repetitions:
        if slot.cell.id not in begun:
            begun.add(slot.cell.id)
            made += [Slot(slot.cell, number, warmup=True) for number in range(1, slot.cell.rules.warmup + 1)]
        made.append(slot)
    return made


def _drawn(slot: Slot, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {slot.cell.id} {slot.repetition}".encode()).digest()

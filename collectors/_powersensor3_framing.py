"""From a PowerSensor3's bytes to rows, whatever was lost or added among them. Pure.

How far apart its sets come is not stated by the box and differs between microcontrollers (50 us; 57 us), so it is
found from the first sets, and so is which sensors a set has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors import _decode_powersensor3 as kernels
from melt_stream.collectors._powersensor3 import Form, Pair
from melt_stream.errors import Transient

Array = np.ndarray[Any, Any]
LEARN = 250
"""Sets from which the period is found: 12 ms."""
HOPELESS = 1 << 16
"""Bytes without sets in them: this is something else."""


class Rows(NamedTuple):
    """Sets in the order they came."""

    stamp: Array
    """The low 10 bits of the microseconds (int64)."""
    marked: Array
    """Whether the box was told to mark it (bool)."""
    values: Array
    """Amperes and volts of each pair in turn (float32, a row a column)."""


class Beat(NamedTuple):
    """How the counter goes from set to set, in us."""

    period: float
    jitter: float
    """More than it was off among the first sets."""


class _Layout(NamedTuple):
    """What the kernel needs to know of a form."""

    form: Form
    mask: Array
    want: Array
    places: Array


@dataclass
class Framing:
    """The state between two blocks of bytes."""

    forms: Sequence[Form]
    pairs: Sequence[Pair]
    beat: Beat | None = None
    """None until enough has come."""
    thrown: int = 0
    """Bytes that belonged to no set."""
    left_out: int = 0
    """Sets before a break, which may be two halves."""
    _layout: _Layout | None = None
    _rest: bytes = b""
    _barren: int = 0
    """Bytes since the last set."""
    _scales: tuple[Array, Array] = field(init=False)

    def __post_init__(self) -> None:
        sensors = [sensor for pair in self.pairs for sensor in (pair.current, pair.voltage)]
        self._scales = np.array([s.step for s in sensors]), np.array([s.zero for s in sensors])

    @property
    def bears_marks(self) -> bool:
        """Whether a set has the word that can be marked, as far as is known yet."""
        return self._layout is not None and 0 in self._layout.form.sent

    def feed(self, data: bytes) -> Rows:
        """Take bytes as they come; return whole sets. Raises ``Transient`` where 64 kB have none."""
        self._rest += data
        self._barren += len(data)
        if self.beat is None:
            self._learn()
        rows = self._rows(0)
        if self.beat is not None and self._layout is not None:
            rows, used, thrown, left_out = self._decode(self._layout, self.beat, self._rest)
            self._rest = self._rest[used:]
            self.thrown, self.left_out = self.thrown + thrown, self.left_out + left_out
        self._barren = 0 if len(rows.stamp) else self._barren
        if self._barren > HOPELESS:
            raise Transient(
                f"expected sets of {self.forms[0].size // 2} words, got {self._barren} bytes without; is it a PowerSensor3?"
            )
        return rows

    def _learn(self) -> None:
        need = (LEARN + 20) * max(form.size for form in self.forms)
        if len(self._rest) < need:
            return
        for form in self.forms:
            layout = self._laid_out(form)
            rows, used, thrown, _ = self._decode(layout, Beat(0.0, 0.0), self._rest[-need:])
            if len(rows.stamp) >= LEARN and 5 * thrown < used:  # else it is the beginning of a longer form
                self._layout, self.beat = layout, _beat(rows.stamp)
                return

    def _decode(self, layout: _Layout, beat: Beat, data: bytes) -> tuple[Rows, int, int, int]:
        raw, (gain, zero) = np.frombuffer(data, np.uint8), self._scales
        rows = self._rows(len(raw) // layout.form.size)
        used, row, thrown, left_out = kernels.decode(
            raw, layout.form.size, layout.mask, layout.want, layout.places, gain, zero, *beat, *rows
        )
        return Rows(rows.stamp[:row], rows.marked[:row], rows.values[:, :row]), used, thrown, left_out

    def _laid_out(self, form: Form) -> _Layout:
        places = [form.place(2 * pair.number + k) for pair in self.pairs for k in (0, 1)]
        return _Layout(form, *form.fixed(kernels.RUN + 1), np.array(places))

    def _rows(self, room: int) -> Rows:
        values = np.empty((2 * len(self.pairs), room), np.float32)
        return Rows(np.empty(room, np.int64), np.empty(room, np.bool_), values)


def _beat(stamp: Array) -> Beat:
    """The mean step of those near the median, and by how much they differ from it, but for one in a hundred."""
    steps = np.diff(stamp) % kernels.MODULUS
    usual = float(np.median(steps))
    near = steps[np.abs(steps - usual) < usual / 4]
    period = float(near.mean())
    return Beat(period, max(1.5, float(np.quantile(np.abs(near - period), 0.99)) + 0.5))

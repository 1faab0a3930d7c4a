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
    _form: Form | None = None
    _rest: bytes = b""
    _scales: tuple[Array, Array] = field(init=False)

    def __post_init__(self) -> None:
        sensors = [sensor for pair in self.pairs for sensor in (pair.current, pair.voltage)]
        self._scales = np.array([s.step for s in sensors]), np.array([s.zero for s in sensors])

    @property
    def bears_marks(self) -> bool:
        """Whether a set has the word that can be marked, as far as is known yet."""
        return self._form is not None and 0 in self._form.sent

    def feed(self, data: bytes) -> Rows:
        """Take bytes as they come; return whole sets. Raises ``Transient`` where 64 kB have none."""
        self._rest += data
        if self.beat is None:
            self._learn()
        if self.beat is None or self._form is None:
            return self._rows(0)
        rows, used, thrown, left_out = self._decode(self._form, self.beat)
        self._rest = self._rest[used:]
        self.thrown, self.left_out = self.thrown + thrown, self.left_out + left_out
        return rows

    def _learn(self) -> None:
        if len(self._rest) < (LEARN + 2) * max(form.size for form in self.forms):
            return
        for form in self.forms:  # the longest first: a shorter one is its beginning
            rows, *_ = self._decode(form, Beat(0.0, 0.0))
            if len(rows.stamp) >= LEARN:
                self._form, self.beat = form, _beat(rows.stamp)
                return
        if len(self._rest) > HOPELESS:
            raise Transient(
                f"expected sets of {self.forms[0].size // 2} words, got {len(self._rest)} bytes without; is it a PowerSensor3?"
            )

    def _decode(self, form: Form, beat: Beat) -> tuple[Rows, int, int, int]:
        raw, (gain, zero) = np.frombuffer(self._rest, np.uint8), self._scales
        places = [form.place(2 * pair.number + k) for pair in self.pairs for k in (0, 1)]
        rows = self._rows(len(raw) // form.size)
        used, row, thrown, left_out = kernels.decode(
            raw, *form.fixed(), np.array(places), gain, zero, *beat, *rows
        )
        return Rows(rows.stamp[:row], rows.marked[:row], rows.values[:, :row]), used, thrown, left_out

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

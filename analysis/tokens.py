"""Token events of one request -> its tokens, each with the step that it came from.

Token 0 has start = stop and no energy of its own: its cost is the prefill. The tokens of step s > 0 cover
(end of step s - 1, end of step s] and share it equally. A device's own times are taken before arrival times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from melt_stream.analysis.clocks import Key

if TYPE_CHECKING:
    from melt_stream.analysis.requests import Log

Array = np.ndarray[Any, Any]
MOST = 1 << 22
"""No answer has more tokens: an index beyond it is damage, not a number of rows to make."""


@dataclass
class Tokens:
    """The steps of one answer; an array value a step, times in ns since the run's start."""

    event: Array
    """Row of the log."""
    last: Array
    """Index of the step's last token."""
    count: Array
    """Tokens in the step."""
    stop: Array
    """When the step ended; -1 where no step could be placed."""
    key: Key
    """The clock that the times are known on."""
    device_times: bool
    """False where they are arrival times."""
    partial: bool

    @property
    def total(self) -> int:
        """Tokens generated."""
        return int(self.last[-1]) + 1

    @property
    def placed(self) -> bool:
        """False where the times are not known."""
        return bool(len(self.stop)) and bool(self.stop[0] >= 0)

    @property
    def start(self) -> Array:
        """When each step began; the first one's is its own end."""
        return np.concatenate([self.stop[:1], self.stop[:-1]])

    def each(self) -> tuple[Array, Array, Array]:
        """For each token: the number of its step, its index, and whether it is its step's last."""
        step = np.repeat(np.arange(len(self.count)), self.count)
        index = np.arange(self.total - len(step), self.total)
        return step, index, index == self.last[step]


def tokens_of(log: Log, rows: Array) -> Tokens:
    """Read the token events ``rows`` (in order of time) of one request."""
    device = ~log.on_host()[rows]
    chosen = rows[device] if device.any() else rows
    usable = chosen[log.placed[chosen]]
    placed = len(usable) > 0
    chosen = usable if placed else chosen
    index, count = log.ints("index")[chosen], log.ints("count")[chosen]
    count = np.maximum(count, 1)
    damaged = (index < 0) | (index >= MOST)
    partial = bool(damaged.any()) or len(usable) < len(rows[device] if device.any() else rows)
    if damaged.all():
        index = np.cumsum(count) - 1
    else:
        chosen, index, count = chosen[~damaged], index[~damaged], count[~damaged]
    order = np.argsort(index, kind="stable")
    chosen, index, count = chosen[order], index[order], count[order]
    once = np.concatenate([[True], np.diff(index) > 0])
    partial |= not once.all()
    chosen, index, count = chosen[once], index[once], count[once]
    since = np.diff(index, prepend=-1)  # what an index skips came in that step too, unless it says otherwise
    partial |= bool((since != count).any())
    stop = log.t[chosen] if placed else np.full(len(chosen), -1)
    partial |= not placed or bool((np.diff(stop) < 0).any())
    return Tokens(
        chosen, index, since, np.maximum.accumulate(stop), log.keys[log.clock[chosen[0]]], bool(device.any()), partial
    )  # fmt: skip

"""What a llama-server's log tells of its own clock: when each task was launched, and when it had ended. Pure: lines to times.

A line begins with the time since the process began, ``M.SS.mmm.uuu`` (``--log-timestamps --log-prefix``; newer servers do so unasked), by
the clock that its timings are from. "processing task" is logged before a slot starts on its prompt, the timings after its last token::

    0.00.256.111 I slot launch_slot_: id  0 | task 0 | processing task, is_child = 0
    0.00.399.995 I slot print_timing: id  0 | task 0 | prompt eval time =     124.24 ms /    32 tokens (...)
    0.00.400.001 I slot print_timing: id  0 | task 0 |        eval time =      19.60 ms /     4 tokens (...)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from melt_stream.collectors._chat import Timings

FLAGS = ("--log-prefix", "--log-timestamps")
_STAMP = re.compile(r"(\d{1,6})\.([0-5]\d)\.(\d{3})\.(\d{3}) ")
_TASK = re.compile(r"\| task (-?\d{1,12}) \|")
_LAUNCHED = re.compile(r"\| task (\d{1,12}) \| processing task")
_TIME = re.compile(r"(prompt )?\beval time =\s*(\d{1,12}\.\d+) ms /\s*(\d{1,9}) (?:tokens|runs)")
ROUNDED_MS = 0.0051
"""The log has hundredths of a ms."""


class Task(NamedTuple):
    """What one task took, by the process's clock in us."""

    launched: int
    """Its slot started no sooner."""
    ended: int
    """Its last token came no later."""
    prompt_ms: float
    prompt_n: int
    predicted_ms: float
    predicted_n: int

    def is_of(self, timings: Timings) -> bool:
        """Tell whether an answer with these last timings was this task."""
        return (
            (self.prompt_n, self.predicted_n) == (timings.prompt_n, timings.predicted_n)
            and abs(self.prompt_ms - timings.prompt_ms) <= ROUNDED_MS
            and abs(self.predicted_ms - timings.predicted_ms) <= ROUNDED_MS
        )


def stamp(line: str) -> int | None:
    """Return a line's time, us since the process began; None where it has none."""
    if (found := _STAMP.match(line)) is None:
        return None
    minutes, seconds, milli, micro = map(int, found.groups())
    return ((minutes * 60 + seconds) * 1000 + milli) * 1000 + micro


@dataclass
class Tasks:
    """Takes a log, line by line; lines of one task may stand between those of another."""

    _launched: dict[str, int] = field(default_factory=dict)
    _prompt: dict[str, tuple[float, int]] = field(default_factory=dict)
    _task: str = ""
    """Whose the lines are that name none: older servers print all timings in one go."""
    _at: int | None = None

    def feed(self, line: str) -> Task | None:
        """Return the task that this line completes, if any."""
        if (at := stamp(line)) is not None:
            self._at = at
        if named := _TASK.search(line):
            self._task = named[1]
        if self._at is None:
            return None
        if launched := _LAUNCHED.search(line):
            self._launched[launched[1]] = self._at
        elif found := _TIME.search(line):
            took = float(found[2]), int(found[3])
            if found[1]:
                self._prompt[self._task] = took
            elif (begun := self._launched.pop(self._task, None)) is not None and self._task in self._prompt:
                return Task(begun, self._at, *self._prompt.pop(self._task), *took)
        return None

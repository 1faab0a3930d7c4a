"""How a run ends: the first reason stands, and whoever gives it cancels the collecting."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import trio

from melt_stream.errors import MeltError

log = logging.getLogger(__name__)


class TimedOut(MeltError):
    """The run took longer than it was given in all."""


@dataclass(frozen=True)
class Ending:
    """How a run ended."""

    reason: str
    error: BaseException | None = None
    """What failed; None for a good end, a time limit and a signal."""
    signal: int | None = None
    exit_status: int | None = None
    """Of the command that was wrapped, if one was."""


class Ender:
    """Ends a run in order when it is told to, by cancelling what collects; everything else follows from that."""

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._collecting: trio.CancelScope | None = None

    def begin(self, collecting: trio.CancelScope) -> None:
        """Say what to cancel; it is done at once where the run has ended before it began."""
        self._collecting = collecting
        if self.ending is not None:
            collecting.cancel()

    def end(self, reason: str, error: BaseException | None = None, *, signal: int | None = None) -> None:
        """End the run; where it has ended already, a first error is still noted."""
        if self.ending is None:
            log.info("the run ends: %s", reason)
            self.ending = Ending(reason, error, signal)
        elif self.ending.error is None and error is not None:
            self.ending = replace(self.ending, error=error)
        if self._collecting is not None:
            self._collecting.cancel()

    def explain(self, asked: str, reason: str, error: BaseException) -> None:
        """End the run, or say why it did where all that was said is ``asked``."""
        if self.ending is not None and self.ending.reason == asked:
            self.ending = Ending(reason, error)
        else:
            self.end(reason, error)

"""Signals that end a run: the first in order, the second by abandoning what hangs."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def on_signals(first: Callable[[signal.Signals], None], second: Callable[[], None]) -> None:
    """Call ``first`` at the first signal and ``second`` at the next, then leave further ones to the system.

    They come through a signal receiver, since a ``KeyboardInterrupt`` could hit a sink in the middle of a batch.
    Returns at once in a thread other than the main one, which gets no signals. A signal that is ignored (``nohup``)
    stays ignored.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or not heeded:
        return
    with trio.open_signal_receiver(*heeded) as received:
        number = signal.Signals(await anext(received))
        log.warning("%s: ending the run in order; once more to abandon what hangs", number.name)
        first(number)
        await anext(received)
        log.warning("abandoning what has not ended; once more to kill")
        second()

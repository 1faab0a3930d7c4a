"""Neutral inference events: what every runtime says in its own words, in ours.

A source of events writes one stream for each clock its times come from; ``role="events"`` marks them, and SQL
sees their union as ``events``. Request numbers come from ``Outlet.next_request`` and are unique in a run.
"""

from __future__ import annotations

from typing import Literal

from melt_stream.clock import HOST, Clock
from melt_stream.stream import Stream

Kind = Literal[
    "phase_start",  # name: baseline, warmup, tail, marker, or a name of the user's or the runtime's
    "phase_end",
    "load_start",
    "load_end",
    "request_sent",  # the client sends; name, detail
    "prefill_start",  # the server's slot starts on the prompt
    "prefill_progress",  # prompt_total, prompt_cached, prompt_processed
    "token",  # index of its last token, count of tokens in this event
    "request_end",  # detail: finish reason, usage
    "request_error",  # detail: what happened
    "window_start",  # a request without tokens, such as a benchmark's window
    "window_end",
    "mark",
]


def events(name: str = "events", clock: Clock = HOST) -> Stream:
    """Return an events stream on ``clock``. Columns that do not apply to a kind are null.

    ``index`` is the number of output tokens so far including this event's (0-based index of the last one),
    ``count`` how many tokens this event stands for, ``visible`` False for EOS and withheld tokens, ``arrival_ns``
    the host's monotonic time at which the client saw it, ``detail`` JSON.
    """
    return Stream(
        name,
        clock=clock,
        role="events",
        kind=str,
        request=int,
        name=str,
        index=int,
        count=int,
        visible=bool,
        drafted=int,
        accepted=int,
        prompt_total=int,
        prompt_cached=int,
        prompt_processed=int,
        arrival_ns=int,
        text=str,
        detail=str,
    )


EVENTS = events()

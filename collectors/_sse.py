"""Streamed HTTP answers, each piece with the host time at which its bytes came in."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import httpx
import httpx_sse

from melt_stream.clock import Now
from melt_stream.errors import DeviceError

LIMIT = 16 * 2**20
"""Bytes that one event or line may have, so that a server gone mad does not fill the memory."""


class Arrivals:
    """One response as it comes in: server-sent events or lines, each as ``(arrival, text)``.

    ``arrival`` is the host's monotonic time, in ns, at which the read that completed the event returned; parsing
    comes after. Events that came in one read have one arrival. Raises ``DeviceError`` where the answer is not
    what was asked for, and httpx's errors where the connection breaks. ``stop(why)`` is called, instead of raising,
    where reading must end in the middle: it has to cancel the next read, so that httpx's generators end in order.
    """

    def __init__(self, response: httpx.Response, now: Now, stop: Callable[[str], None]) -> None:
        self.headers = response.headers  # httpx_sse looks at the content type
        self._response, self._now, self._stop = response, now, stop
        self._arrival, self._pending = 0, 0

    async def events(self) -> AsyncGenerator[tuple[int, str], None]:
        """Yield the data of each server-sent event."""
        # Of a response it uses .headers and .aiter_text() alone, and these are ours.
        source = httpx_sse.EventSource(cast("httpx.Response", self))
        try:
            async with aclosing(source.aiter_sse()) as events:
                async for event in events:
                    self._pending = 0
                    if event.data:
                        yield self._arrival, event.data
        except httpx_sse.SSEError as exc:
            raise DeviceError(f"{self._response.url}: {exc}") from exc

    async def lines(self) -> AsyncGenerator[tuple[int, str], None]:
        """Yield each line that is not empty; what follows the last line feed is a line too."""
        rest = ""
        async with aclosing(self.aiter_text()) as texts:
            async for text in texts:
                *complete, rest = (rest + text).split("\n")
                for line in filter(str.strip, complete):
                    self._pending = 0
                    yield self._arrival, line
        if rest.strip():
            yield self._arrival, rest

    async def aiter_text(self) -> AsyncGenerator[str, None]:
        """Yield the text of each read, having stamped it first; a character may come in two reads."""
        if (coding := self.headers.get("content-encoding", "identity")) != "identity":
            raise DeviceError(
                f"{self._response.url}: expected an answer that is not compressed, got {coding!r}"
            )
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async with aclosing(cast("AsyncGenerator[bytes, None]", self._response.aiter_raw())) as chunks:
            async for chunk in chunks:
                self._arrival = self._now()
                self._pending += len(chunk)
                if self._pending > LIMIT:
                    self._stop(f"{self._response.url}: expected events below {LIMIT} bytes, got a longer one")
                yield decoder.decode(chunk)

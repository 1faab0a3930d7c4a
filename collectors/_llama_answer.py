"""What a llama.cpp server says while it answers, as neutral events on its own clock."""

from __future__ import annotations

from typing import Any

from melt_stream.clock import Reading
from melt_stream.collectors._asking import Request
from melt_stream.collectors._chat import END, Chunk, Progress, Timings, parse
from melt_stream.errors import DeviceError
from melt_stream.outlet import Outlet, Row
from melt_stream.stream import Stream


class LlamaAnswer:
    """One answer, as rows of ``stream``: an events stream whose clock counts us since the slot started.

    The epoch is the request's number. Every piece with a new time gives a one-way reading of that clock: it
    showed ``tick`` after the request was sent and before the piece arrived. A token's tick is the server's own
    ``prompt_ms + predicted_ms``; the first token comes with the prompt's end, at ``prompt_ms``. A piece may stand for several tokens (a character of three tokens, a speculative
    step), several pieces for one step, and the last tokens may have no text: ``predicted_n`` counts them all.
    A step's row is written when the next step shows that its text is complete.
    """

    def __init__(self, out: Outlet, stream: Stream, request: Request, *, keep_text: bool) -> None:
        self.complete = False
        self.text = ""
        self._out, self._stream, self._request, self._keep_text = out, stream, request, keep_text
        self._last: Timings | None = None
        self._held: Row | None = None
        self._progress: Progress | None = None
        self._read = -1
        self._detail: dict[str, Any] = {}

    @property
    def timings(self) -> Timings | None:
        """The last that the server said."""
        return self._last

    @property
    def number(self) -> int:
        """The request's."""
        return self._request.number

    def take(self, arrival: int, data: str) -> None:
        if data == END:
            self.complete = True
            return
        chunk = parse(data)
        if chunk.prompt_progress:
            self._prefill(arrival, chunk.prompt_progress, chunk.timings)
        if chunk.timings:
            self._step(arrival, chunk.timings)
        elif chunk.text and self._last is None:
            raise DeviceError(
                "expected timings in every piece (timings_per_token), got a token without: "
                "is this a llama.cpp server? For any other, use the workload openai_sse"
            )
        self.text += chunk.content
        if chunk.text:
            self._text(chunk.text)
        self._end(chunk)

    def close(self) -> dict[str, Any]:
        self._release()
        if last := self._last:
            self._detail["timings"] = last.model_dump(exclude_none=True)
        return self._detail

    def _prefill(self, arrival: int, progress: Progress, timings: Timings | None) -> None:
        self._start(arrival, progress)
        self._progress = progress
        tick, resolution = (timings.us, 1) if timings else (round(progress.time_ms * 1000), 1000)
        self._reading(tick, arrival, resolution)
        if progress.processed > progress.cache:
            self._row(tick, arrival, "prefill_progress", **_counts(progress))

    def _step(self, arrival: int, timings: Timings) -> None:
        before, drafted, accepted = _counted(self._last)
        self._start(arrival, None)
        self._reading(timings.us, arrival)
        if timings.predicted_n <= before:
            return
        if self._progress is None:  # a server too old to report progress still says how long the prompt was
            self._progress = _whole_prompt(timings)
            self._row(round(timings.prompt_ms * 1000), arrival, "prefill_progress", **_counts(self._progress))
        self._release()
        # The first token's text may be withheld, but its time is told: it came with the prompt's end.
        if before == 0 and timings.predicted_n > 1:
            first = round(timings.prompt_ms * 1000)
            self._row(first, arrival, "token", index=0, count=1, visible=False)
            before = 1
        self._held = {"tick": timings.us, "arrival": arrival, "kind": "token", "visible": False}
        self._held |= {"index": timings.predicted_n - 1, "count": timings.predicted_n - before}
        if timings.draft_n is not None:
            self._held |= {
                "drafted": timings.draft_n - drafted,
                "accepted": (timings.draft_n_accepted or 0) - accepted,
            }
        self._last = timings

    def _text(self, text: str) -> None:
        if self._held is not None:
            self._held["visible"] = True
            if self._keep_text:
                self._held["text"] = self._held.get("text", "") + text

    def _end(self, chunk: Chunk) -> None:
        if chunk.finish:
            self.complete = True
            self._detail["finish"] = chunk.finish
        if chunk.usage:
            self._detail["usage"] = chunk.usage.model_dump(exclude_none=True)
        if chunk.model:
            self._detail["model"] = chunk.model

    def _start(self, arrival: int, progress: Progress | None) -> None:
        if self._read < 0:
            self._row(0, arrival, "prefill_start", **_counts(progress))

    def _reading(self, tick: int, arrival: int, resolution: int = 1) -> None:
        if tick > self._read:  # a piece that repeats a time arrived later than the first: it says nothing new
            self._read = tick
            self._out.clock_reading(
                Reading(
                    self._stream.clock, tick, resolution, not_before=self._request.sent, not_after=arrival,
                    epoch=self._request.number, kind="arrival",
                )
            )  # fmt: skip

    def _release(self) -> None:
        if row := self._held:
            self._held = None
            self._row(**row)

    def _row(self, tick: int, arrival: int, kind: str, **values: Any) -> None:
        number = self._request.number
        self._out.row(
            self._stream, tick=tick, epoch=number, kind=kind, request=number, arrival_ns=arrival, **values
        )  # fmt: skip


def _counted(last: Timings | None) -> tuple[int, int, int]:
    return (last.predicted_n, last.draft_n or 0, last.draft_n_accepted or 0) if last else (0, 0, 0)


def _counts(progress: Progress | None) -> Row:
    if progress is None:
        return {}
    return {
        "prompt_total": progress.total,
        "prompt_cached": progress.cache,
        "prompt_processed": progress.processed,
    }


def _whole_prompt(timings: Timings) -> Progress:
    total = timings.cache_n + timings.prompt_n
    return Progress(total=total, cache=timings.cache_n, processed=total, time_ms=timings.prompt_ms)

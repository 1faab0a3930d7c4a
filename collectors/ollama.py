"""Workload ``ollama``: prompts answered by an Ollama server, token times by the wall clock of its machine."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import httpx
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from melt_stream.clock import Clock, Reading
from melt_stream.collector import Health
from melt_stream.collectors._asking import Asking, Request, plainly
from melt_stream.collectors._prompts import Question
from melt_stream.collectors._sse import Arrivals
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS, events
from melt_stream.outlet import Outlet

WALL = events("wall", Clock("wall", rho_ppm=500.0))
"""Ticks are ns of UTC since 1970 as the serving machine has them; stored as clock ``<instance>.wall``."""

_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
Count = Annotated[int, Field(ge=0, le=2**53)]


class _Message(BaseModel):
    content: str = ""
    thinking: str | None = None


class _Piece(BaseModel):
    """One line of an answer; durations are ns."""

    created_at: str = ""
    model: str = ""
    message: _Message = _Message()
    done: bool = False
    done_reason: str | None = None
    total_duration: Count | None = None
    load_duration: Count | None = None
    prompt_eval_count: Count | None = None
    prompt_eval_cached_count: Count | None = None
    prompt_eval_duration: Count | None = None
    eval_count: Count | None = None
    eval_duration: Count | None = None
    error: str | None = None


class _Shown(BaseModel):
    details: dict[str, Any] = {}


@dataclass
class Ollama(Asking):
    """Ask Ollama's ``/api/chat``. The model is loaded first, as the phase ``load``."""

    model: str
    """The model's name there, such as ``smollm2:135m``."""
    _: KW_ONLY
    url: str = "http://127.0.0.1:11434"
    n_ctx: PositiveInt = 2048
    """Tokens of context."""
    load_timeout: PositiveFloat = 600.0
    """Seconds in which the model must be loaded."""

    @staticmethod
    def example() -> dict[str, Any]:
        answer = (
            '{"created_at": "2026-01-01T00:00:00.25Z", "message": {"content": "Good"}}\n'
            '{"created_at": "2026-01-01T00:00:00.5Z", "done": true, "done_reason": "stop", "eval_count": 2}\n'
        )
        replies = {"/api/generate": '{"done": true}', "/api/show": '{"details": {}}', "/api/chat": answer}
        config = {"model": "smollm2:135m", "url": "{url}", "prompts": ["Good morning"]}
        return {"kind": "http", "replies": replies, "config": config}

    def check(self) -> Health:
        """Tell where it is expected; asks nobody."""
        return Health(True, f"{self.model} at {self.url}")

    async def collect(self, out: Outlet) -> None:
        with plainly():
            async with self.reached(out, self.url), self.client(self.url) as client:
                await self._load(out, client)
                await self.ask_all(out, partial(self._ask, out, client))

    async def _load(self, out: Outlet, client: httpx.AsyncClient) -> None:
        """Load the model (a request without a prompt does) and tell what it is."""
        asked = {"model": self.model, "stream": False, "options": {"num_ctx": self.n_ctx}}
        out.row(EVENTS, kind="load_start", name=self.model)
        try:
            loaded = await client.post("/api/generate", json=asked, timeout=self.load_timeout)
        except httpx.HTTPError as exc:
            raise DeviceError(
                f"{self.url}: expected an Ollama server, got {type(exc).__name__}: {exc}"
            ) from exc
        if not loaded.is_success:
            raise DeviceError(
                f"{self.url}: expected to load {self.model}, got HTTP {loaded.status_code}: {loaded.text[:300]}"
            )
        out.row(EVENTS, kind="load_end")
        out.fact("model", self.model)
        await self._tell_details(out, client)

    async def _tell_details(self, out: Outlet, client: httpx.AsyncClient) -> None:
        try:
            shown = await client.post("/api/show", json={"model": self.model})
            details = _Shown.model_validate_json(shown.content).details if shown.is_success else {}
        except (httpx.HTTPError, ValidationError) as exc:
            raise DeviceError(f"{self.url}: expected what Ollama tells at /api/show, got {exc}") from exc
        for name, value in details.items():
            out.fact(name, value)

    async def _ask(self, out: Outlet, client: httpx.AsyncClient, question: Question) -> str | None:
        options = {
            "num_predict": self.limit(question),
            "temperature": self.temperature,
            "seed": self.seed,
            "num_ctx": self.n_ctx,
        }
        body = {"model": self.model, "messages": self.messages(question), "stream": True, "options": options}
        return await self.exchange(
            out, client, "/api/chat", question, body,
            lambda request: OllamaAnswer(out, request, keep_text=self.keep_text),
            Arrivals.lines,
        )  # fmt: skip


class OllamaAnswer:
    """One answer, as rows of the stream ``wall``; each line gives a one-way reading of that clock.

    A line with text counts as one token; what ``eval_count`` has beyond that is one last row with ``visible``
    False. Prefill's start is the first token's time less ``prompt_eval_duration``, known when the answer ends.
    """

    def __init__(self, out: Outlet, request: Request, *, keep_text: bool) -> None:
        self.complete = False
        self.text = ""
        self._out, self._request, self._keep_text = out, request, keep_text
        self._count = 0
        self._first: int | None = None
        self._detail: dict[str, Any] = {}

    def take(self, arrival: int, data: str) -> None:
        piece = _parse(data)
        tick = _wall_ns(piece.created_at)
        self._out.clock_reading(
            Reading(WALL.clock, tick, not_before=self._request.sent, not_after=arrival, kind="arrival")
        )  # fmt: skip
        self.text += piece.message.content
        text = (piece.message.thinking or "") + piece.message.content
        if text:
            self._token(tick, arrival, self._count + 1, text)
        if piece.done:
            self._end(piece, tick, arrival)

    def close(self) -> dict[str, Any]:
        return self._detail

    def _token(self, tick: int, arrival: int, total: int, text: str | None) -> None:
        count, self._count = total - self._count, total
        self._first = tick if self._first is None else self._first
        self._row(
            tick, arrival, "token", index=total - 1, count=count, visible=text is not None,
            text=text if self._keep_text else None,
        )  # fmt: skip

    def _end(self, piece: _Piece, tick: int, arrival: int) -> None:
        self.complete = True
        if (piece.eval_count or 0) > self._count:
            self._token(tick, arrival, piece.eval_count or 0, None)
        if piece.prompt_eval_duration is not None and self._first is not None:
            self._prefill(piece, self._first, piece.prompt_eval_duration)
        told = piece.model_dump(exclude_none=True, exclude={"created_at", "message", "done", "done_reason"})
        self._detail = {"finish": piece.done_reason, **told}

    def _prefill(self, piece: _Piece, end: int, duration: int) -> None:
        cached, total = piece.prompt_eval_cached_count or 0, piece.prompt_eval_count
        counts = {"prompt_total": total, "prompt_cached": cached}
        self._row(end - duration, None, "prefill_start", **counts, prompt_processed=cached)
        self._row(end, None, "prefill_progress", **counts, prompt_processed=total)

    def _row(self, tick: int, arrival: int | None, kind: str, **values: Any) -> None:
        self._out.row(WALL, tick=tick, kind=kind, request=self._request.number, arrival_ns=arrival, **values)


def _parse(data: str) -> _Piece:
    try:
        piece = _Piece.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise DeviceError(
            f"expected a line of Ollama's, got {data[:120]!r}: {first['loc']}: {first['msg']}"
        ) from exc
    if piece.error is not None:
        raise DeviceError(f"Ollama reports an error: {piece.error[:500]}")
    return piece


def _wall_ns(text: str) -> int:
    """Return an RFC 3339 time as ns since 1970; all nine digits count."""
    if not (parts := _STAMP.fullmatch(text)):
        raise DeviceError(f"created_at: expected a time as in RFC 3339, got {text[:60]!r}")
    try:
        moment = datetime.fromisoformat(parts[1] + parts[3])
    except ValueError as exc:
        raise DeviceError(f"created_at: expected a time as in RFC 3339, got {text[:60]!r}: {exc}") from exc
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + int((parts[2] or "").ljust(9, "0") or "0")

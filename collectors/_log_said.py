"""What a log says of inference: events with their times, as the formats of ``_log_*.py`` read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, Field, ValidationError

from melt_stream.events import Kind

Base = Literal["realtime", "boottime", "relative", "line"]
"""The device's wall clock; its CLOCK_BOOTTIME; the program's own, from its start on; the line that says it."""
Count = Annotated[int, Field(ge=0, le=1 << 40)]
NS = Annotated[int, Field(ge=0, lt=1 << 62)]
LONGEST_NS = 10**18
"""30 years: a duration beyond it is damage."""
M = TypeVar("M", bound=BaseModel)


class At(NamedTuple):
    """A moment."""

    base: Base
    ns: int
    """Since the clock's zero, or after the line's stamp (negative: before it)."""
    resolution_ns: int = 1
    """It was in [ns, ns + resolution)."""


NOW = At("line", 0)


@dataclass(frozen=True)
class Said:
    """An event."""

    kind: Kind
    at: At = NOW
    request: str | None = None
    """What the log, or the format, calls the request."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Other columns of ``events``; ``detail`` as a dict."""


class Unreadable(Exception):
    """A line is of the format but damaged: expected what, got what."""


class Format(Protocol):
    """How one runtime logs."""

    def take(self, text: str) -> Sequence[Said]:
        """Return what a line says, or completes. Raises ``Unreadable``."""

    def finish(self) -> Sequence[Said]:
        """Return what was held back, since no more comes for now. Raises ``Unreadable``."""


def read(model: type[M], text: str) -> M:
    """Return the JSON object. Raises ``Unreadable``."""
    try:
        return model.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise Unreadable(
            f"expected {model.__name__} as JSON, got {text[:120]!r}: {where}: {first['msg']}"
        ) from exc


def sequence(
    request: str, start: At, first: At, end: At, prompt: int | None, output: int, detail: Mapping[str, Any],
    *, sent: bool = True,
) -> list[Said]:  # fmt: skip
    """Return a request of which is known when its prefill began, its first token came, and its last.

    What came between is one step, since nothing tells its tokens' times.
    """
    counts = {"prompt_total": prompt, "prompt_cached": 0} if prompt is not None else {}
    said = [Said("request_sent", start, request)] if sent else []
    said.append(Said("prefill_start", start, request, counts))
    if prompt is not None:
        said.append(Said("prefill_progress", first, request, {**counts, "prompt_processed": prompt}))
    if output:
        said.append(Said("token", first, request, {"index": 0, "count": 1, "visible": True}))
    if output > 1:
        said.append(Said("token", end, request, {"index": output - 1, "count": output - 1, "visible": True}))
    return [*said, Said("request_end", end, request, {"detail": dict(detail)})]


def window(request: str, start: At, end: At, name: str, detail: Mapping[str, Any]) -> list[Said]:
    """Return a request whose inside is not known."""
    return [
        Said("window_start", start, request, {"name": name}),
        Said("window_end", end, request, {"name": name, "detail": dict(detail)}),
    ]


def before_line(ns: float) -> At:
    """Return the moment so long before the line's stamp. Raises ``Unreadable`` where that cannot be."""
    if not 0 <= ns <= LONGEST_NS:
        raise Unreadable(f"expected a duration of at most {LONGEST_NS} ns, got {ns:g}")
    return At("line", -round(ns))

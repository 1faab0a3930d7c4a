"""The pieces of an OpenAI-compatible chat stream, with what llama.cpp adds, checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from melt_stream.errors import DeviceError

END = "[DONE]"
Count = Annotated[int, Field(ge=0, le=2**40)]
Milliseconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class _Piece(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Timings(_Piece):
    """llama.cpp's own times of a request; its milliseconds have microsecond resolution."""

    cache_n: Count = 0
    prompt_n: Count
    """Prompt tokens processed so far, without cached ones."""
    prompt_ms: Milliseconds
    predicted_n: Count
    """Output tokens so far, with EOS and those whose text is withheld."""
    predicted_ms: Milliseconds
    draft_n: Count | None = None
    draft_n_accepted: Count | None = None

    @property
    def us(self) -> int:
        """Time since the slot started on the prompt."""
        return round((self.prompt_ms + self.predicted_ms) * 1000)


class Progress(_Piece):
    """How far llama.cpp is with the prompt; ``processed`` and ``total`` count cached tokens too."""

    total: Count
    cache: Count
    processed: Count
    time_ms: Milliseconds


class Delta(_Piece):
    """What a piece adds to the message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class Choice(_Piece):
    """One of the answers; only the first is ever asked for."""

    delta: Delta = Delta()
    finish_reason: str | None = None


class Usage(_Piece):
    """The server's own count of tokens."""

    model_config = ConfigDict(extra="allow", frozen=True)
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Chunk(_Piece):
    """One ``chat.completion.chunk``."""

    choices: list[Choice] = []
    model: str | None = None
    timings: Timings | None = None
    prompt_progress: Progress | None = None
    usage: Usage | None = None
    error: Any = None

    @property
    def text(self) -> str:
        """Everything that it adds for the reader: reasoning, then content."""
        deltas = [choice.delta for choice in self.choices[:1]]
        return "".join(d.reasoning_content or d.reasoning or "" for d in deltas) + self.content

    @property
    def content(self) -> str:
        """What it adds to the answer itself."""
        return "".join(choice.delta.content or "" for choice in self.choices[:1])

    @property
    def finish(self) -> str | None:
        """Why the answer ends here, if it does."""
        return self.choices[0].finish_reason if self.choices else None


def parse(data: str) -> Chunk:
    """Return the piece; raises ``DeviceError`` for anything else, and for the server's own error."""
    try:
        chunk = Chunk.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DeviceError(
            f"expected a chat.completion.chunk, got {data[:120]!r}: {where}: {first['msg']}"
        ) from exc
    if chunk.error is not None:
        raise DeviceError(f"the server reports an error: {str(chunk.error)[:500]}")
    return chunk

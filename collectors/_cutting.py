"""Synthetic prompts get the number of tokens that was asked for, by the count of the server that they are for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from melt_stream.collectors._prompts import Question
from melt_stream.collectors._synthetic import cut
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

Count = Callable[[Question], Awaitable[int | None]]
"""Tells how many tokens a question's whole prompt has on the server; None where it does not tell."""
FACT = "synthetic_prompts"


async def nobody_counts(question: Question) -> None:
    """Be the ``Count`` of a server that does not tell."""


async def cut_to_tokens(out: Outlet, questions: Sequence[Question], count: Count) -> list[Question]:
    """Return the questions, synthetic ones cut to their ``tokens``, in a phase ``tokenize`` of its own.

    A fact ``synthetic_prompts`` says whether their numbers are exact; where the server does not count, the drafts are
    returned, a word a token. What each prompt had in the end, its request tells. Raises ``DeviceError`` where the
    chat template alone has more tokens.
    """
    made = [question for question in questions if question.tokens is not None]
    if not made:
        return list(questions)
    if await count(made[0]) is None:
        out.fact(FACT, "approximate: a word a token, as the server does not count tokens")
        return list(questions)
    out.row(EVENTS, kind="phase_start", name="tokenize")
    try:
        done = [await _cut(question, count) for question in questions]
    finally:
        out.row(EVENTS, kind="phase_end", name="tokenize")
    off = max(abs(found - (question.tokens or found)) for question, found in done)
    out.fact(
        FACT,
        "exact by the server's own count" if not off else f"approximate: up to {off} tokens off",
    )
    return [question for question, _ in done]


async def _cut(question: Question, count: Count) -> tuple[Question, int]:
    """Return the question cut, and its number of tokens; one that is not synthetic as it is."""
    wanted = question.tokens
    if wanted is None:
        return question, 0

    async def counted(text: str) -> int:
        if (found := await count(question._replace(text=text))) is None:
            raise DeviceError("expected the server to go on counting tokens, got no count")
        return found

    text, found = await cut(question.text, wanted, counted)
    if found > wanted and " " not in text:
        raise DeviceError(
            f"prompts: synthetic: expected tokens >= {found}, which the chat template and one word are, got {wanted}"
        )
    return question._replace(text=text), found

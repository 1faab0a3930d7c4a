"""Who waits for whom: conversations side by side, the turns of each one after the other."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import trio

from melt_stream.collectors._prompts import Message, Question
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

Context = Literal["cleared", "kept"]
Ask = Callable[[Question], Awaitable[str | None]]
"""Asks one question; returns why it failed, or None."""


def conversations(questions: Iterable[Question]) -> list[list[Question]]:
    """Return the questions that belong together, where the first of them stands; one of no conversation is alone."""
    found: dict[str | int, list[Question]] = {}
    for number, question in enumerate(questions):
        found.setdefault(number if question.conversation is None else question.conversation, []).append(
            question
        )
    return list(found.values())


@dataclass
class Turns:
    """Asks conversations, and keeps how each of their questions ended."""

    out: Outlet
    ask: Ask
    context: Context
    outcomes: list[str | None] = field(default_factory=list)
    """Why each question that was asked failed; None for those that did not."""

    async def side_by_side(self, found: Iterable[Sequence[Question]], concurrency: int) -> None:
        """Ask with ``concurrency`` conversations under way: the next begins when one has ended."""
        left = iter(found)

        async def work() -> None:
            for turns in left:
                await self.one_after_another(turns)

        async with trio.open_nursery() as nursery:
            for _ in range(concurrency):
                nursery.start_soon(work)

    async def at(self, found: Iterable[Sequence[Question]], moments: Iterator[float]) -> None:
        """Begin each conversation so many seconds from now, whether those before have ended or not."""
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for turns, after in zip(found, moments, strict=False):
                await trio.sleep_until(begun + after)
                nursery.start_soon(self.one_after_another, turns)

    async def one_after_another(self, turns: Sequence[Question]) -> None:
        """Ask the turns of one conversation in order.

        Where their context is kept, one that fails ends it, as those after it would be other prompts: a row ``mark``
        named ``conversation_ended`` tells how many were not asked.
        """
        kept = self.context == "kept" and turns[0].conversation is not None
        history = list[Message]() if kept else None
        for number, question in enumerate(turns, 1):
            failure = await self.ask(question._replace(history=history))
            self.outcomes.append(failure)
            if failure and kept and number < len(turns):
                told = {
                    "conversation": question.conversation, "turn": question.turn, "repetition": question.repetition,
                    "not_asked": len(turns) - number, "error": failure,
                }  # fmt: skip
                self.out.row(EVENTS, kind="mark", name="conversation_ended", detail=json.dumps(told))
                return

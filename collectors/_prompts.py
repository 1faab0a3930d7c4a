"""Prompts: what is asked, where it comes from, and what it is called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from melt_stream.collectors._humaneval import HumanEval
from melt_stream.collectors._prompt_files import Entry, entries, entry
from melt_stream.collectors._synthetic import Synthetic
from melt_stream.errors import ConfigError
from melt_stream.plugins import configure

DEFAULT_PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "Write a short note that thanks a colleague for mending the coffee machine.",
    "List three ways to save battery on a phone, and say why each of them works.",
)
HUMANEVAL, SYNTHETIC = "humaneval", "synthetic"
_REFERENCE = re.compile(rf"({HUMANEVAL}|{SYNTHETIC}):(.*)", re.DOTALL)
Message = dict[str, str]


class Question(NamedTuple):
    """One prompt and what it is called in the tables."""

    name: str
    text: str
    warmup: bool = False
    system: str | None = None
    """Its own system message; None: the workload's."""
    max_tokens: int | None = None
    """Its own; None: the workload's."""
    conversation: str | None = None
    """What it belongs to; None: it stands alone."""
    turn: int = 1
    """Its number in the conversation, from 1."""
    repetition: int = 1
    """Which time the list is asked, from 1."""
    tokens: int | None = None
    """How many tokens the whole prompt shall have where it is synthetic: ``text`` is then cut to that."""
    history: list[Message] | None = None
    """What was said in the conversation so far, where that is sent along; shared by its turns."""

    def heard(self, answer: str) -> None:
        """Add the prompt and its answer to what was said."""
        if self.history is not None:
            self.history.append({"role": "user", "content": self.text})
            self.history.append({"role": "assistant", "content": answer})


def questions_of(prompts: list[str | list[str]] | str) -> list[Question]:
    """Return what ``Asking.prompts`` says, at least one; raises ``ConfigError`` that names the entry."""
    if isinstance(prompts, str):
        return _referred(prompts)
    found = [
        one
        for number, told in enumerate(prompts, 1)
        for one in entry(told, number, f"prompt-{number}", "prompts")
    ]
    if not found:
        raise ConfigError("prompts: expected at least one prompt, or the path of a file of them, got none")
    return _asked(found)


def _referred(text: str) -> list[Question]:
    if (reference := _REFERENCE.fullmatch(text)) is None:
        return _asked(entries(Path(text)))
    where, told = f"prompts: {reference[1]}", _numbers(reference[2], text)
    if reference[1] == HUMANEVAL:
        problems: HumanEval = configure(HumanEval, told, where)
        return [Question(name, prompt) for name, prompt in problems.problems()]
    made: Synthetic = configure(Synthetic, told, where)
    return [
        Question(f"{SYNTHETIC}-{n}", draft, max_tokens=made.output, tokens=made.tokens)
        for n, draft in enumerate(made.drafts(), 1)
    ]


def _numbers(text: str, whole: str) -> dict[str, int]:
    """Return ``a=1,b=2`` as a table."""
    pairs = [pair.strip() for pair in text.split(",") if pair.strip()]
    split = [re.fullmatch(r"(\w+)\s*=\s*([0-9]{1,9})", pair) for pair in pairs]
    if bad := [pair for pair, parts in zip(pairs, split, strict=True) if parts is None]:
        raise ConfigError(
            f"prompts: expected name=number, such as count=10, got {bad[0]!r:.60} in {whole!r:.80}"
        )
    names = [parts[1] for parts in split if parts]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ConfigError(f"prompts: expected {twice[0]} once, got it twice in {whole!r:.80}")
    return {parts[1]: int(parts[2]) for parts in split if parts}


def _asked(found: Iterable[Entry]) -> list[Question]:
    """Number the turns of each conversation in the order in which they come."""
    turns = Counter[str]()
    made = []
    for one in found:
        turn = 1
        if one.conversation is not None:
            turns[one.conversation] += 1
            turn = turns[one.conversation]
        name = one.name if one.name is not None else f"{one.conversation}.{turn}"
        made.append(
            Question(
                name, one.prompt, system=one.system, max_tokens=one.max_tokens, conversation=one.conversation,
                turn=turn,
            )
        )  # fmt: skip
    return made

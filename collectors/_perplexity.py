"""Perplexity of a text, by the rule of llama.cpp's ``llama-perplexity``.

The text is cut into chunks of ``n_ctx`` tokens, each begun with BOS where the model wants one; of each chunk the second half is
scored, so that every token has at least half a context before it: exp of the mean of -ln p. The standard error is that of the
mean, carried through the exponential, with the tokens taken as independent, as there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np


class Scores(Protocol):
    """What is needed of a model."""

    @property
    def n_ctx(self) -> int: ...
    @property
    def bos(self) -> int: ...
    def tokens(self, text: str) -> list[int]: ...
    def score(self, tokens: list[int], first: int = 0) -> Any: ...


class Perplexity(NamedTuple):
    """Of a text."""

    value: float
    stderr: float
    samples: int
    """Tokens scored."""


def perplexity(model: Scores, text: str, chunks: int | None = None) -> Perplexity:
    """Score a text, or its first ``chunks``. Raises ``ValueError`` where it is shorter than two chunks."""
    tokens = model.tokens(text)
    count = len(tokens) // model.n_ctx
    if count < 2:
        raise ValueError(
            f"expected a text of 2 x {model.n_ctx} tokens or more, got {len(tokens)}; use a smaller n_ctx"
        )
    begins = bool(tokens) and tokens[0] == model.bos
    losses = []
    for number in range(min(count, chunks or count)):
        chunk = tokens[number * model.n_ctx : (number + 1) * model.n_ctx]
        if begins:
            chunk = [model.bos, *chunk[1:]]
        losses.append(-model.score(chunk, model.n_ctx // 2 - 1).logprobs)
    loss = np.concatenate(losses)
    value = math.exp(float(np.mean(loss)))
    return Perplexity(value, value * float(np.std(loss, ddof=1)) / math.sqrt(len(loss)), len(loss))

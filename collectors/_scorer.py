"""A GGUF model's probability of a text, token by token, and its greedy answer: llama.cpp by the wheel ``cyllama``.

Runs in a process of its own (``_evaluate_child``): what crashes there is an exit status here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cyllama.llama import llama_cpp

Array = np.ndarray[Any, np.dtype[np.float64]]


class Model(llama_cpp.LlamaModel):  # type: ignore[misc]
    """The wheel's model with what its contexts look for (0.2.18 forgets it)."""

    @property
    def n_vocab(self) -> int:
        return int(self.get_vocab().n_vocab)


class Scored(NamedTuple):
    """What the model says of the tokens after the first."""

    logprobs: Array
    """Natural logarithm of each one's probability, given those before."""
    greedy: np.ndarray[Any, np.dtype[np.bool_]]
    """Whether it is the most probable one."""


class Scorer:
    """One model, one context of ``n_ctx`` tokens."""

    def __init__(self, path: Path, *, n_ctx: int, threads: int) -> None:
        self._model = Model(str(path), verbose=False)
        self.vocab = self._model.get_vocab()
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.LlamaContext(self._model, params, verbose=False)
        self.n_ctx = n_ctx

    @property
    def description(self) -> str:
        """What llama.cpp calls it: ``llama 135M Q4_1``."""
        return str(self._model.desc)

    @property
    def bos(self) -> int:
        """The token that a text begins with."""
        return int(self.vocab.token_bos())

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """Return the tokens of a text, after BOS where the model wants that and ``special``."""
        return list(self.vocab.tokenize(text, special, False))

    def score(self, tokens: Sequence[int], first: int = 0) -> Scored:
        """Say how probable each token after position ``first`` is. Raises ``ValueError`` for more than ``n_ctx``."""
        self._decode(tokens, 0, every=True)
        found = [self._one(position, tokens[position + 1]) for position in range(first, len(tokens) - 1)]
        return Scored(np.array([x for x, _ in found]), np.array([y for _, y in found], bool))

    def answer(self, tokens: Sequence[int], most: int) -> Iterator[str]:
        """Yield the pieces of the greedy answer, up to ``most``, until the model ends it."""
        self._decode(tokens, 0, every=False)
        at = len(tokens)
        for _ in range(min(most, self.n_ctx - at)):
            token = int(np.argmax(self._context.get_logits_ith(-1)))
            if self.vocab.is_eog(token):
                return
            yield str(self.vocab.token_to_piece(token, 0, False))
            self._decode([token], at, every=False)
            at += 1

    def _one(self, position: int, following: int) -> tuple[float, bool]:
        logits = np.asarray(self._context.get_logits_ith(position), np.float64)
        logits -= logits.max()
        return float(logits[following] - np.log(np.exp(logits).sum())), bool(logits[following] == 0.0)

    def _decode(self, tokens: Sequence[int], at: int, *, every: bool) -> None:
        if at + len(tokens) > self.n_ctx:
            raise ValueError(f"expected up to {self.n_ctx} tokens, got {at + len(tokens)}")
        if at == 0:
            self._context.kv_cache_clear()
        batch = llama_cpp.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        batch.set_batch(list(tokens), at, every)
        if not every:
            batch.set_last_logits_to_true()
        self._context.decode(batch)

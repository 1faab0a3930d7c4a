"""A GGUF model for lm-evaluation-harness: log-likelihoods and greedy answers of :mod:`._scorer`."""

from __future__ import annotations

from typing import Any

from lm_eval.api.model import TemplateLM

from melt_stream.collectors._scorer import Scorer

MOST = 256
"""Tokens of an answer where the task says nothing."""


class Gguf(TemplateLM):  # type: ignore[misc]
    """What the harness asks; one question after the other."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self._scorer = scorer

    @property
    def eot_token_id(self) -> int:
        return int(self._scorer.vocab.token_eos())

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._scorer.tokens(string, special=add_special_tokens is not False)

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        return [self._likelihood(context, continuation) for _, context, continuation in requests]

    def _likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        tokens = [*context, *continuation][-self._scorer.n_ctx :]
        scored = self._scorer.score(tokens, len(tokens) - len(continuation) - 1)
        return float(scored.logprobs.sum()), bool(scored.greedy.all())

    def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
        return [self._rolling(request.args[0]) for request in requests]

    def _rolling(self, text: str) -> float:
        """Ln p of a whole text: each token once, with up to a context before it."""
        tokens, size = (
            [self.prefix_token_id, *self.tok_encode(text, add_special_tokens=False)],
            self._scorer.n_ctx,
        )
        total, done = 0.0, 1
        while done < len(tokens):
            stop = min(len(tokens), done + (size - 1 if done == 1 else size // 2))
            window = tokens[max(0, stop - size) : stop]
            total += float(self._scorer.score(window, len(window) - (stop - done) - 1).logprobs.sum())
            done = stop
        return total

    def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
        return [self._answer(*request.args) for request in requests]

    def _answer(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        most = int(settings.get("max_gen_toks", MOST))
        tokens = self._scorer.tokens(context)[-(self._scorer.n_ctx - most) :]
        text = ""
        for piece in self._scorer.answer(tokens, most):
            text += piece
            if any(stop in text for stop in stops):
                break
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]

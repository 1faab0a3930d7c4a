"""How right a model is: one stream for what is evaluated here and for results of others."""

from __future__ import annotations

from melt_stream.stream import Stream

ACCURACY = Stream(
    "accuracy", model=str, sha256=str, quantisation=str, framework=str, task=str, metric=str, value=float, stderr=float, samples=int,
    higher_is_better=bool, tool=str,
)  # fmt: skip
"""One figure a row: ``value`` of ``metric`` on ``task`` with its standard error, over ``samples`` questions (tokens, for perplexity).
``model`` is the file's name (``sha256`` tells it apart) or what the source calls it, ``quantisation`` as the file or the source says."""

LOWER_IS_BETTER = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score"}
)


def higher_is_better(metric: str) -> bool:
    """Tell whether more of a metric is better."""
    return metric not in LOWER_IS_BETTER

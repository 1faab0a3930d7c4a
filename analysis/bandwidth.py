"""How memory-bound a decode is: the bytes that it must read a second against what the device's memory can give.

To make a token, a dense transformer reads each of its weights once, and the keys and values of every token before
it. Sequences that are decoded together share the weights' bytes, not each other's keys and values (the memory roof of
S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009, for an arithmetic intensity near 2 FLOP a weight)::

    bytes per token = weight_bytes / sequences + kv_bytes_per_token * context
    share           = bytes per token * tokens_per_s / peak

Near 1, only fewer bytes make it faster (a smaller quantisation, a shorter context); far below, something else holds it
up: computing, the clock, starting kernels. Prefill is another matter: it reads the weights once for a whole batch of tokens.

It is a floor of the traffic: activations are left out, and so are weights read twice. It is too high, and may pass 1, where
not all weights are read (a mixture of experts; an embedding table of its own, of which a token reads one row: leave both out of
``weight_bytes``), where a cache holds a part, and where the tokens come several a step (speculative decoding).
"""

from __future__ import annotations

import math


def bytes_per_token(
    weight_bytes: float, kv_bytes_per_token: float, context: float, sequences: float = 1
) -> float:
    """Return the bytes that decoding one token reads at least.

    ``weight_bytes``: of the weights as they are stored, such as the size of the model's file; ``kv_bytes_per_token``: of
    one token's keys and values over all layers; ``context``: tokens before this one, see :func:`mean_context`;
    ``sequences``: how many are decoded in one step. Raises ``ValueError`` for what is no such quantity.
    """
    _check("weight_bytes", weight_bytes, above=0)
    _check("kv_bytes_per_token", kv_bytes_per_token)
    _check("context", context)
    if not (math.isfinite(sequences) and sequences >= 1):
        raise ValueError(f"sequences: expected at least 1, got {sequences!r}")
    return weight_bytes / sequences + kv_bytes_per_token * context


def mean_context(prompt_tokens: float, output_tokens: float) -> float:
    """Return the mean number of tokens before those that are decoded.

    The first output token comes with the prefill. Token k of the others (1 <= k < n) has the prompt and k tokens before
    it, so that their mean is ``prompt + n / 2``. Raises ``ValueError`` where nothing was decoded.
    """
    _check("prompt_tokens", prompt_tokens)
    if not (math.isfinite(output_tokens) and output_tokens >= 2):
        raise ValueError(
            f"output_tokens: expected at least 2, as the first is the prefill's, got {output_tokens!r}"
        )
    return prompt_tokens + output_tokens / 2


def bandwidth(
    weight_bytes: float | None,
    kv_bytes_per_token: float | None,
    context: float | None,
    tokens_per_s: float | None,
    peak: float | None,
    sequences: float = 1,
) -> float | None:
    """Return the share of ``peak``, bytes/s, that decoding at ``tokens_per_s`` needs at least; None where one is not known.

    ``tokens_per_s`` is of all ``sequences`` together; ``peak`` is the device's, as its data sheet or a benchmark says.
    Raises ``ValueError`` for what is no such quantity.
    """
    if (
        weight_bytes is None
        or kv_bytes_per_token is None
        or context is None
        or tokens_per_s is None
        or peak is None
    ):
        return None
    _check("tokens_per_s", tokens_per_s)
    _check("peak", peak, above=0)
    return bytes_per_token(weight_bytes, kv_bytes_per_token, context, sequences) * tokens_per_s / peak


def _check(name: str, value: float, above: float | None = None) -> None:
    if not math.isfinite(value) or value < 0 or (above is not None and value <= above):
        least = "not negative" if above is None else f"above {above:g}"
        raise ValueError(f"{name}: expected a number {least}, got {value!r}")

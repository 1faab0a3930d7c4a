"""How memory-bound a decode is."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.bandwidth import bandwidth, bytes_per_token, mean_context

WEIGHTS = 3_825_000_000  # bytes: some 7B at 4.5 bits a weight; 32 layers x 32 heads x 128 x 2 (K, V) x 2 bytes a token
KV_F16 = 32 * 32 * 128 * 2 * 2
ORIN_AGX = 204.8e9  # bytes/s, NVIDIA's data sheet: LPDDR5, 256 bit


def test_a_7b_model_on_an_orin_by_hand():
    # 3.825 GB of weights and 512 x 0.524288 MB of keys and values, 30 times a second, of 204.8 GB/s
    share = bandwidth(WEIGHTS, KV_F16, 512, 30.0, ORIN_AGX)
    assert share == pytest.approx((3.825 + 0.268435456) * 30 / 204.8, rel=1e-12)
    assert share == pytest.approx(0.59963, abs=1e-4)


def test_sequences_decoded_together_share_the_weights_and_nothing_else():
    assert bytes_per_token(800.0, 2.0, 50.0, sequences=4) == 200.0 + 100.0
    assert bandwidth(800.0, 2.0, 50.0, 3.0, 900.0, sequences=4) == pytest.approx(1.0)


@given(st.integers(0, 500), st.integers(2, 60))
def test_the_mean_context_is_that_of_every_decoded_token(prompt, output):
    decoded = [prompt + k for k in range(1, output)]  # token k has the prompt and k tokens before it
    assert mean_context(prompt, output) == pytest.approx(sum(decoded) / len(decoded))


sizes = st.floats(1e-3, 1e13)


@given(sizes, sizes, st.floats(0, 1e6), st.floats(0, 1e4), sizes)
def test_bytes_are_the_sum_over_weights_and_context_and_the_share_scales(weights, kv, context, rate, peak):
    share = bandwidth(weights, kv, context, rate, peak)
    assert share == pytest.approx(
        bandwidth(weights, 0, context, rate, peak) + rate * kv * context / peak, rel=1e-9
    )
    assert bandwidth(weights, kv, context, rate, 2 * peak) == pytest.approx(share / 2)
    assert bandwidth(weights, kv, context, 2 * rate, peak) == pytest.approx(2 * share)


@pytest.mark.parametrize("unknown", range(5))
def test_what_is_not_known_gives_no_share(unknown):
    values = [1e9, 1e5, 100.0, 10.0, 1e11]
    values[unknown] = None
    assert bandwidth(*values) is None


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("position", range(6))
def test_what_is_no_quantity_is_named(position, bad):
    values = [1e9, 1e5, 100.0, 10.0, 1e11, 1.0]
    values[position] = bad
    names = ["weight_bytes", "kv_bytes_per_token", "context", "tokens_per_s", "peak", "sequences"]
    with pytest.raises(ValueError, match=f"{names[position]}: expected"):
        bandwidth(*values)


def test_no_weights_no_peak_and_nothing_decoded_are_named():
    for name, values in {"weight_bytes": (0, 1, 1, 1, 1), "peak": (1, 1, 1, 1, 0)}.items():
        with pytest.raises(ValueError, match=f"{name}: expected a number above 0, got 0"):
            bandwidth(*values)
    with pytest.raises(ValueError, match="output_tokens: expected at least 2"):
        mean_context(10, 1)

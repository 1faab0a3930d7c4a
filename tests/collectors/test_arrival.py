"""When requests are sent: one after an answer, or at a rate that waits for nobody."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._arrival import moments
from melt_stream.collectors._asking import Asking
from melt_stream.errors import DeviceError
from melt_stream.outlet import Hub


def some(count: int, *how) -> list[float]:
    return list(itertools.islice(moments(*how), count))


@given(st.floats(0.01, 1000), st.integers(0, 2**32))
def test_moments_begin_at_once_never_go_back_and_are_the_same_for_a_seed(rate, seed):
    for arrival in ("fixed", "poisson"):
        made = some(20, arrival, rate, seed)
        assert made[0] == 0
        assert made == sorted(made) == some(20, arrival, rate, seed)
    assert some(5, "fixed", rate, seed) == pytest.approx([n / rate for n in range(5)])
    assert some(5, "poisson", rate, seed)[1] != some(5, "poisson", rate, seed + 1)[1]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_poissons_law():
    at = np.array(some(20_000, "poisson", 4.0, 7))
    gaps = np.diff(at)
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)  # of an exponential: as its mean
    counts = np.histogram(at, np.arange(0, at[-1], 1.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.06)


async def sent(autojump_clock, **fields) -> list[float]:
    """When each of four requests was sent; an answer takes one second."""
    del autojump_clock
    began, times = trio.current_time(), []

    async def ask(question) -> None:
        times.append(trio.current_time() - began)
        await trio.sleep(1.0)

    await Asking(prompts=["a", "b", "c", "d"], **fields).ask_all(Hub().outlet("w"), ask)
    return times


async def test_a_rate_waits_for_no_answer(autojump_clock):
    assert await sent(autojump_clock, rate=10.0) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    drawn = await sent(autojump_clock, rate=10.0, arrival="poisson", seed=3)
    assert drawn == pytest.approx(some(4, "poisson", 10.0, 3))


async def test_without_a_rate_the_next_is_asked_when_one_has_been_answered(autojump_clock):
    assert await sent(autojump_clock) == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert await sent(autojump_clock, concurrency=2) == pytest.approx([0.0, 0.0, 1.0, 1.0])


async def test_warm_ups_come_one_after_another_before_the_rate_counts(autojump_clock):
    assert await sent(autojump_clock, warmup=1, rate=10.0) == pytest.approx([0.0, 1.0, 1.1, 1.2, 1.3])


async def test_a_rate_without_one_answer_is_an_error(autojump_clock):
    async def ask(question) -> str:
        return "HTTP 500"

    with pytest.raises(DeviceError, match="got none to 2 requests; the last: HTTP 500"):
        await Asking(prompts=["a", "b"], rate=10.0).ask_all(Hub().outlet("w"), ask)

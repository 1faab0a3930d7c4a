"""Markers in simulated power: how well their onset is found, beside the peak of a plain correlation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benches.figures import Figure, at_most
from benches.measure import Effort
from melt_stream.analysis.markers import Code, Trace, find
from melt_stream.testing import simulate_marker

Array = np.ndarray[Any, Any]
RISE_S = 0.010
TO_REACH = {5000.0: 1.0, 100.0: 0.3}
"""Root mean square error, in samples, by Hz. With 64 edges of 10 ms in noise of 3 dB none can do better than 0.62
samples at 5 kHz (Cramer-Rao: noise / step x sqrt(rise x hz / 64))."""


def markers(effort: Effort) -> Iterator[Figure]:
    """127 chips of 51.7 ms, not a multiple of the sample period, step^2 / noise^2 of 3 dB, a known rise of 10 ms."""
    for hz, runs in ((5000.0, effort.pick(60, 2)), (100.0, effort.pick(300, 4))):
        ours, plain = np.array([both(seed, hz) for seed in range(runs)]).T * hz
        name = f"marker at {hz:,.0f} Hz"
        yield Figure(f"{name}: rms error of the onset", [_rms(ours)], "samples", at_most(TO_REACH[hz]))
        yield Figure(f"{name}: worst of {runs}", [float(np.max(np.abs(ours)))], "samples")
        yield Figure(f"{name}: rms of a plain correlation's peak", [_rms(plain)], "samples")


def both(seed: int, hz: float) -> tuple[float, float]:
    """How late ours and a plain correlation find the onset, s."""
    rng = np.random.default_rng(seed)
    onset = 3 + float(rng.uniform())
    edges, t, watts = simulate_marker(rng, onset_s=onset, hz=hz, rise_s=RISE_S)
    code = Code(edges)
    found = find(code, Trace(t, t, watts), RISE_S)
    if found is None:
        raise ValueError(f"seed {seed}, {hz} Hz: expected the marker to be found, got none")
    return found.onset_s - onset - code.centre * 1e-9, peak(edges, t, watts) - onset


def peak(edges: Array, t: Array, watts: Array) -> float:
    """Where the correlation with the code as it was played is highest, less half of the rise; to a sample."""
    period = float(t[1] - t[0])
    inside = np.arange(0, edges[-1] * 1e-9, period)
    template = np.where(np.searchsorted(edges * 1e-9, inside, "right") % 2, 1.0, -1.0)
    template = template - np.mean(template)
    size = 1 << (len(watts) + len(template)).bit_length()
    turned = np.fft.rfft(watts - np.mean(watts), size) * np.conj(np.fft.rfft(template, size))
    at = int(np.argmax(np.fft.irfft(turned, size)[: len(watts) - len(template)]))
    return float(t[at]) - RISE_S / 2


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))

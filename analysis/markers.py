"""A known on/off code, found in a rail's power: where it begins on the rail's clock, and how sure that is.

The power that answers a load of code c(t) is taken to be level + slope t + step x s(t - onset): s rises linearly for
``rise`` after each edge and falls as long. With C the running integral of c, s(t) = (C(t) - C(t - rise)) / rise;
what a sample holds that is the mean over a window is the same difference of the integral of s.

*Search.* The samples are averaged in bins of an eighth of a chip; bins without a sample are masked, so that gaps and rails
slower than the code need nothing else. Correlation is normalised at each lag by the samples that are there
(Padfield, IEEE Trans. Image Processing 21 (2012) 2670), by FFT. Only a positive peak counts, one that no chance
correlation of so few samples would reach and that stands out against the next best.

*Fit.* Least squares over all samples in and around the code: for each onset (and rise) level, slope and step are
solved for, and a grid around the best is refined. The standard uncertainty of the onset is the larger of two: from the residuals' variance
as if they were independent, and from the scatter of what each chip by itself has to say (sums of residual x slope by
chip), which also holds edges that came late by themselves. Power that does not rise linearly shifts the onset by a part
of the rise: a tenth of it is added where the rise was fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BINS = 8
"""Bins a chip when searching."""
FINEST_S = 1e-4
"""Samples that come faster are averaged before the fit."""
SHORTEST_RISE_S = 1e-6
LONGEST_RISE = 1.0
"""Of a chip."""
LEAST_OVERLAP = 0.5
"""Of the code must lie in the trace."""
CHANCE = 5.5
"""Standard deviations that a correlation must lie above 0, by Fisher's z = atanh(r) of 1/sqrt(n - 3): n is the number of
samples or chips, whichever are fewer, since a load may change as often as the code does."""
LEAST_CONFIDENCE = 1.7
"""Best peak over the next one."""
SHAPE = 0.1
"""Standard uncertainty from the shape of a rise that was fitted, as a part of it."""
GRID, ZOOMS, HALVINGS = 9, 6, 4


@dataclass(frozen=True)
class Code:
    """When the load was switched on, off, on, ..., off: int64 ns on the code's clock."""

    edges: Array

    @property
    def centre(self) -> int:
        """The time that offsets are told for: there a wrong rate of either clock matters least."""
        return int(self.edges[0] + (self.edges[-1] - self.edges[0]) // 2)

    @property
    def seconds(self) -> Array:
        """The edges in s since the centre."""
        return np.asarray((self.edges - self.centre) * 1e-9)

    @property
    def chip_s(self) -> float:
        """Half the mean time between edges: the runs of an m-sequence are two chips long on average.

        Not the shortest time, nor any quantile: after a pause of a busy machine many edges come at once.
        """
        return float(self.edges[-1] - self.edges[0]) / (2 * (len(self.edges) - 1)) * 1e-9


@dataclass(frozen=True)
class Trace:
    """Power in W over windows from ``left`` to ``right``, s since any origin, in order; equal for samples of a moment."""

    left: Array
    right: Array
    watts: Array

    def between(self, start: float, stop: float) -> Trace:
        """Return the samples that lie between two times."""
        a, b = int(np.searchsorted(self.left, start)), int(np.searchsorted(self.right, stop, "right"))
        return Trace(self.left[a:b], self.right[a:b], self.watts[a:b])

    @property
    def period(self) -> float:
        """The usual time between samples, s."""
        return float(np.median(np.diff(self.left))) if len(self.left) > 1 else math.inf

    def thinned(self, finest: float) -> Trace:
        """Average neighbours until samples come no faster than ``finest`` s; what misses a neighbour is left out."""
        k = math.floor(finest / self.period) if self.period > 0 else 1
        if k < 2:
            return self
        n = len(self.left) // k * k
        left, right = self.left[:n].reshape(-1, k), self.right[:n].reshape(-1, k)
        whole = right[:, -1] - left[:, 0] < 2 * k * self.period
        half = np.where(
            right[:, -1] - right[:, 0] > 0, self.period / 2, 0.0
        )  # a moment stands for its surroundings
        half = np.where(right[:, 0] > left[:, 0], 0.0, half)
        return Trace(
            (left[:, 0] - half)[whole], (right[:, -1] + half)[whole], np.mean(self.watts[:n].reshape(-1, k), 1)[whole]
        )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A code that was found in a trace."""

    onset_s: float
    """When the answer to the code's centre began, s on the trace's clock."""
    u_s: float
    """Its standard uncertainty."""
    rise_s: float
    step_w: float
    noise_w: float
    """Standard deviation of the residuals of the samples as they were recorded."""
    score: float
    """Normalised correlation of the best lag."""
    confidence: float
    """Best peak over the next one."""

    @property
    def snr(self) -> float:
        """step^2 / noise^2."""
        return (self.step_w / self.noise_w) ** 2 if self.noise_w > 0 else math.inf


def find(code: Code, trace: Trace, rise_s: float | None = None) -> Found | None:
    """Find the code in the trace, or return None; ``rise_s`` is fitted where it is not given."""
    good = np.isfinite(trace.watts)
    trace = Trace(trace.left[good], trace.right[good], trace.watts[good])
    if len(code.edges) < 2 or len(trace.left) < 8:
        return None
    peak = _search(code, trace)
    return None if peak is None else _fit(code, trace, peak, rise_s)


@dataclass(frozen=True)
class _Peak:
    at: float
    score: float
    confidence: float


def _search(code: Code, trace: Trace) -> _Peak | None:
    step = code.chip_s / BINS
    middle = (trace.left + trace.right) / 2
    origin = float(middle[0])
    bins = np.floor((middle - origin) / step).astype(np.int64)
    count = np.bincount(bins).astype(np.float64)
    total = np.bincount(bins, trace.watts - np.mean(trace.watts))
    power = np.divide(total, count, out=np.zeros(len(count)), where=count > 0)
    window = float(np.median(trace.right - trace.left))
    span = code.seconds[-1] - code.seconds[0] + window
    n = math.ceil(span / step) + 1
    template = _mean_code(code, (np.arange(n) + 0.5) * step - span / 2, step + window)
    score, there = scores(template, power, (count > 0).astype(np.float64), min(1.0, step / trace.period))
    best = int(np.argmax(score))
    near = math.ceil(1.5 * max(BINS, window / step))
    others = np.concatenate([score[: max(best - near, 0)], score[best + near + 1 :], [0.0]])
    usual = 1 / math.sqrt(
        span / code.chip_s
    )  # where the trace is hardly longer than the code, there are no others
    confidence = float(score[best] / max(np.max(others), usual))
    found = _Peak(origin + (best - n + 1) * step + span / 2, float(score[best]), confidence)
    independent = min(float(there[best]), span / code.chip_s)
    chance = math.tanh(CHANCE / math.sqrt(max(independent - 3, 1.0)))
    return found if found.score >= chance and found.confidence >= LEAST_CONFIDENCE else None


def scores(template: Array, power: Array, mask: Array, density: float = 1.0) -> tuple[Array, Array]:
    """Correlate ``template`` with ``power`` at every lag, normalised over the bins that ``mask`` has there.

    Returns len(power) + len(template) - 1 scores, the first where the template's last bin meets the first of
    ``power``, and the number of bins that were there. A score is reduced by the square root of the part of the code
    that is there (of ``density`` of all bins, where samples come more slowly); with less than half of it, it is 0.
    """
    n = len(power) + len(template) - 1
    size = 1 << (n - 1).bit_length()
    code = np.fft.rfft(np.stack([np.ones(len(template)), template, template**2])[:, ::-1], size)
    seen = np.fft.rfft(np.stack([mask, mask * power, mask * power**2]), size)
    pairs = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (1, 1))
    m, x, xx, t, tt, tx = (np.fft.irfft(code[i] * seen[j], size)[:n] for i, j in pairs)
    there = np.rint(m)
    varied = (there * tt - t * t) * (there * xx - x * x)
    floor = 1e-9 * max(float(np.max(varied, initial=0.0)), 1e-300)
    part = np.clip(there / (len(template) * density), 0.0, 1.0)
    good = (part >= LEAST_OVERLAP) & (varied > floor)
    score = np.where(good, (there * tx - t * x) / np.sqrt(np.where(good, varied, 1.0)) * np.sqrt(part), 0.0)
    return score, there


def _mean_code(code: Code, t: Array, width: float) -> Array:
    """The code's mean over ``width`` around each time."""
    return (_integral(code.seconds, t + width / 2) - _integral(code.seconds, t - width / 2)) / width


def _integral(edges: Array, t: Array) -> Array:
    """The code's running integral C, s."""
    lengths = np.diff(edges)
    lengths[1::2] = 0.0
    return np.asarray(np.interp(t, edges, np.concatenate([[0.0], np.cumsum(lengths)])))


def _twice(edges: Array, t: Array) -> Array:
    """The running integral of C, s^2."""
    on = np.append((np.arange(len(edges) - 1) % 2 == 0).astype(np.float64), 0.0)
    length = np.append(np.diff(edges), 0.0)
    once = np.concatenate([[0.0], np.cumsum(on * length)[:-1]])
    twice = np.concatenate([[0.0], np.cumsum(once * length + on * length**2 / 2)[:-1]])
    k = np.searchsorted(edges, t, "right") - 1
    since = t - edges[k]
    return np.where(k >= 0, twice[k] + since * (once[k] + on[k] * since / 2), 0.0)


def response(code: Code, trace: Trace, onset: float, rise: float) -> Array:
    """What each sample of a trace shows of a step of 1 W that answers the code with this onset and rise (s)."""
    edges, rise = code.seconds, max(rise, SHORTEST_RISE_S)
    left, right = trace.left - onset, trace.right - onset
    width = right - left
    moment = width < SHORTEST_RISE_S
    if moment.all():
        return np.asarray((_integral(edges, left) - _integral(edges, left - rise)) / rise)
    rising = [_twice(edges, t) - _twice(edges, t - rise) for t in (left, right)]
    return np.asarray((rising[1] - rising[0]) / (rise * np.where(moment, SHORTEST_RISE_S, width)))


@dataclass(frozen=True)
class _Problem:
    """Least squares of one code in one trace."""

    code: Code
    trace: Trace
    nuisance: Array
    """Orthonormal columns: level and slope."""
    power: Array
    """Without them."""

    @classmethod
    def of(cls, code: Code, trace: Trace) -> _Problem:
        middle = (trace.left + trace.right) / 2
        plain = np.column_stack([np.ones(len(middle)), middle - np.mean(middle)])
        nuisance, _ = np.linalg.qr(plain)
        made = cls(code, trace, nuisance, trace.watts)
        return replace(made, power=made.free(trace.watts - np.mean(trace.watts)))

    def free(self, values: Array) -> Array:
        """Take level and slope out."""
        return np.asarray(values - self.nuisance @ (self.nuisance.T @ values))

    def gain(self, middle: float, rise: float) -> float:
        """By how much a rise with this middle lowers the sum of squares; 0 where its step would be negative."""
        s = response(self.code, self.trace, middle - rise / 2, rise)
        along, plain = _dot(s, self.power), (_dot(s, self.nuisance[:, 0]), _dot(s, self.nuisance[:, 1]))
        square = _dot(s, s) - plain[0] ** 2 - plain[1] ** 2
        return along * along / max(square, 1e-30) if along > 0 else 0.0


def _dot(a: Array, b: Array) -> float:
    """Not ``a @ b``: its threads wait for each other where other programs are busy."""
    return float(np.einsum("i,i->", a, b))


def _fit(code: Code, trace: Trace, peak: _Peak, rise_s: float | None) -> Found | None:
    half = (code.seconds[-1] - code.seconds[0]) / 2
    around = trace.between(peak.at - half - 2 * code.chip_s, peak.at + half + 3 * code.chip_s)
    problem = _Problem.of(code, around.thinned(FINEST_S))
    middle, rise = _best(problem, peak.at, rise_s)
    onset = middle - rise / 2
    s = problem.free(response(code, problem.trace, onset, rise))
    step = float(s @ problem.power) / max(float(s @ s), 1e-30)
    if step <= 0:
        return None
    residual = problem.power - step * s
    u = _uncertainty(problem, onset, rise, step, residual, fitted=rise_s is None)
    raw = _Problem.of(code, around)
    left_over = raw.power - step * raw.free(response(code, around, onset, rise))
    noise = float(np.sqrt(np.sum(left_over**2) / max(len(left_over) - 4, 1)))
    return Found(onset, u, rise, step, noise, peak.score, peak.confidence)


def _best(problem: _Problem, at: float, rise_s: float | None) -> tuple[float, float]:
    """Refine a grid of middles (and rises) around the best, each time a quarter as wide.

    Rises shorter than a period are left out: no sample would lie in most of them, and noise would choose among them.
    """
    chip = problem.code.chip_s
    reach, shortest, rises = chip, 0.0, np.array([rise_s])
    if rise_s is None:
        shortest = min(problem.trace.period, LONGEST_RISE * chip)
        rises = np.linspace(shortest, LONGEST_RISE * chip, GRID)
    best = at, float(rises[0])
    spread = rises[-1] - rises[0]
    for _ in range(ZOOMS):
        middles = best[0] + np.linspace(-reach, reach, GRID)
        best = max(((m, r) for m in middles for r in rises), key=lambda point: problem.gain(*point))
        reach, spread = reach / 4, spread / 4
        if rise_s is None:
            rises = np.unique(
                np.clip(best[1] + np.linspace(-spread, spread, 3), shortest, LONGEST_RISE * chip)
            )
    return _vertex(problem, *best, reach), best[1]


def _vertex(problem: _Problem, middle: float, rise: float, reach: float) -> float:
    """The top of a parabola through three middles, where it has one between them."""
    low, top, high = (problem.gain(middle + d, rise) for d in (-reach, 0.0, reach))
    bend = low - 2 * top + high
    return middle + float(np.clip((low - high) / (2 * bend), -1, 1)) * reach if bend < 0 else middle


def _uncertainty(
    problem: _Problem, onset: float, rise: float, step: float, residual: Array, *, fitted: bool
) -> float:
    """Return the onset's standard uncertainty, s."""
    code, trace = problem.code, problem.trace
    h = max(rise, trace.period) / 4
    slope = step / (2 * h) * (response(code, trace, onset + h, rise) - response(code, trace, onset - h, rise))
    j = np.column_stack([problem.free(slope), problem.free(response(code, trace, onset, rise))])
    inverse = np.linalg.pinv(j.T @ j)
    variance = float(residual @ residual) / max(len(residual) - 4, 1)
    chips = np.floor((trace.left - trace.left[0]) / code.chip_s).astype(np.int64)
    by_chip = np.array([np.bincount(chips, j[:, k] * residual) for k in range(2)])
    alone, clustered = variance * inverse[0, 0], float((inverse @ by_chip @ by_chip.T @ inverse)[0, 0])
    square = max(alone, clustered) + _between_samples(code, trace, onset, rise) ** 2 / 12
    if fitted:
        rise_u = _rise_u(
            problem, onset + rise / 2, rise, max(clustered / alone, 1.0) * variance if alone else 0.0
        )
        square += (
            (rise_u / 2) ** 2 + (SHAPE * rise) ** 2 + trace.period**2 / 48
        )  # anywhere from 0 to a period
    return math.sqrt(square)


def _rise_u(problem: _Problem, middle: float, rise: float, variance: float) -> float:
    """How far the rise may lie from the fitted one until the sum of squares has grown by ``variance``, s.

    By its curvature alone it would be too small. For each rise the middle is refined anew.
    """
    reach = max(rise, problem.trace.period)
    middles = middle + np.linspace(-reach, reach, GRID)

    def gain(other: float) -> float:
        return max(problem.gain(m, other) for m in middles)

    least, widest = gain(rise) - variance, 0.0
    for end in (0.0, LONGEST_RISE * problem.code.chip_s):
        near, far = rise, end
        for _ in range(HALVINGS):
            between = (near + far) / 2
            near, far = (between, far) if gain(between) >= least else (near, between)
        widest = max(widest, abs(far - rise))
    return widest


def _between_samples(code: Code, trace: Trace, onset: float, rise: float) -> float:
    """By how much the code may move without any of its corners passing a moment that was sampled, s."""
    if (trace.right > trace.left).any():
        return 0.0
    corners = np.concatenate([code.seconds, code.seconds + rise]) + onset
    k = np.clip(np.searchsorted(trace.left, corners), 1, len(trace.left) - 1)
    return float(
        np.min(np.maximum(trace.left[k] - corners, 0)) + np.min(np.maximum(corners - trace.left[k - 1], 0))
    )

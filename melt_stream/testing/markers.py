"""A marker as a meter would show it, made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from melt_stream.marker import edges

Array = np.ndarray[Any, Any]


def simulate_marker(
    rng: np.random.Generator,
    *,
    hz: float = 5000.0,
    snr_db: float = 3.0,
    rise_s: float = 0.010,
    onset_s: float = 3.0,
    seconds: float = 13.0,
    chips: int = 127,
    chip_s: float = 0.0517,
    play: int = 0,
    ppm: float = 0.0,
    step_w: float = 1.0,
) -> tuple[Array, Array, Array]:
    """Return the code's edges (int64 ns, the first at 0), times of samples (s on the meter's clock) and watts.

    ``snr_db`` is step^2 / noise^2 of one sample. The answer to the code begins at ``onset_s`` and rises linearly for ``rise_s``;
    the meter's clock is ``ppm`` fast from there on, and its first sample comes anywhere in its first period.
    """
    at = np.array(edges(chips, chip_s * 1e9, play), np.int64)
    t = (np.arange(int(seconds * hz)) + rng.uniform()) / hz
    true = (t - onset_s) / (1 + ppm * 1e-6)
    since = np.subtract.outer(true, at * 1e-9) / max(rise_s, 1e-9) if len(t) < 20_000 else None
    sign = np.where(np.arange(len(at)) % 2, -step_w, step_w)
    if since is not None:
        power = np.clip(since, 0.0, 1.0) @ sign
    else:
        power = sum(
            s * np.clip((true - e * 1e-9) / max(rise_s, 1e-9), 0.0, 1.0)
            for s, e in zip(sign, at, strict=True)
        )
    return at, t, 5.0 + np.asarray(power) + rng.normal(0.0, step_w * 10 ** (-snr_db / 20), len(t))

"""The samples of an emulated black Monsoon: the inverse of what a client computes from a record's counts."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
FULL = 0xFFFF
ZEROS = np.array([1000, 2000, 1200, 1800, 900, 1500])
"""Counts of main coarse, main fine, usb, aux at no current, before they drift."""
SPANS = np.array([48_000, 32_000, 40_000, 40_000, 30_000, 25_000])
"""Counts between zero and reference."""
DRIFT = np.array([4, -6, 3, 5, -4, 7])
"""Counts by which the zeros move from calibration to calibration ..."""
SCATTER = np.array([-8, 4, 0, -4, 8])
"""... and those by which its five records differ: only their mean is right."""
CALIBRATION = 2 * len(SCATTER)
"""Samples of a calibration: five of the zero, then five of the reference."""
MEASURED, ZERO, REFERENCE = 0x00, 0x10, 0x30


def records(number: Array, every: int, amps: Array, volts: Array, scales: Array, offsets: Array) -> Array:
    """Return as many records of 18 bytes as there are sample numbers; ``amps`` [n, 3] of main, usb, aux; ``volts`` [n, 2].

    A calibration begins at sample 0 and after ``every`` samples; ``scales`` (mA, uA, ...) and ``offsets`` are what the
    box's memory holds for the six ranges.
    """
    turn, phase = np.divmod(number, every)
    zeros = ZEROS + turn[:, None] * DRIFT
    zero, span = zeros + offsets, SPANS - offsets
    counts = zero + np.repeat(amps, 2, axis=1) / (scales * np.array([1e-3, 1e-6] * 3)) * span
    counts = np.clip(np.rint(counts), 0, FULL)
    scatter = SCATTER[phase % len(SCATTER)][:, None]
    is_zero, is_reference = phase < CALIBRATION // 2, (phase >= CALIBRATION // 2) & (phase < CALIBRATION)
    counts[is_zero] = (zeros + scatter)[is_zero]
    counts[is_reference] = (zeros + SPANS + scatter)[is_reference]
    made = np.zeros((len(number), 18), np.uint8)
    made[:, :12] = counts.astype(">u2").view(np.uint8).reshape(-1, 12)
    made[:, 12:16] = (
        np.clip(np.rint(volts / np.array([250e-6, 125e-6])), 0, FULL).astype(">u2").view(np.uint8)
    )
    made[:, 16] = 25
    made[:, 17] = np.where(is_zero, ZERO, np.where(is_reference, REFERENCE, MEASURED))
    return made

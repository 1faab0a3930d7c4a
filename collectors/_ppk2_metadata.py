"""What a PPK2 says of itself: the text that answers opcode 0x19, and the table of amperes that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from melt_stream.errors import DeviceError

RANGES = 5
END = b"END"
LIMIT = 16 << 10
"""Bytes of metadata; a real reply has about 700."""
DEFAULTS: dict[str, list[float]] = {
    "R": [1031.64, 101.65, 10.15, 0.94, 0.043],
    "GS": [1.0] * RANGES,
    "GI": [1.0] * RANGES,
    "O": [0.0] * RANGES,
    "S": [0.0] * RANGES,
    "I": [0.0] * RANGES,
    "UG": [1.0] * RANGES,
}
"""The official app's, for what a device does not say or calls nan."""
VOLTS_PER_COUNT = 1.8 / 163840


@dataclass(frozen=True)
class Metadata:
    """The reply, read."""

    modifiers: dict[str, list[float]]
    """By name, one of each range."""
    defaulted: list[str]
    """Keys that were missing, or no number."""
    said: dict[str, str]
    """Everything as it was said."""

    @property
    def vdd_mv(self) -> float | None:
        """The source's voltage as the device has it; None where it does not say."""
        return _number(self.said.get("VDD", ""))

    def amps(self, adc: Any, chosen: int, volts: float) -> Any:
        """Convert ADC fields (an array) of one range: shunt, quadratic gain, offsets that depend on the supply."""
        m = {name: values[chosen] for name, values in self.modifiers.items()}
        x = (np.asarray(adc, np.float64) * 4 - m["O"]) * (VOLTS_PER_COUNT / m["R"])
        return m["UG"] * (x * (m["GS"] * x + m["GI"]) + m["S"] * volts + m["I"])

    def step(self, chosen: int) -> float:
        """Amperes between two neighbouring ADC counts of a range, near zero."""
        m = {name: values[chosen] for name, values in self.modifiers.items()}
        return abs(m["UG"] * m["GI"] * 4 * VOLTS_PER_COUNT / m["R"])

    def table(self, volts: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return amperes by ADC and range, as ``_decode_ppk2`` looks them up; ranges that do not exist read as 4."""
        adc = np.arange(1 << 14)
        rows = [self.amps(adc, min(chosen, RANGES - 1), volts) for chosen in range(8)]
        return np.concatenate(rows).astype(np.float32)


def parse(reply: bytes) -> Metadata:
    """Read ``Key: value`` lines up to ``END``. Raises ``DeviceError`` where none of them is a modifier."""
    text = reply.partition(END)[0].decode("ascii", "replace")
    said: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip().isalnum():
            said[key.strip()] = value.strip()
    modifiers = {name: list(values) for name, values in DEFAULTS.items()}
    defaulted = []
    for name, values in modifiers.items():
        for chosen in range(RANGES):
            number = _number(said.get(f"{name}{chosen}", ""))
            if number is None or (name == "R" and number <= 0):
                defaulted.append(f"{name}{chosen}")
            else:
                values[chosen] = number
    if len(defaulted) == RANGES * len(modifiers):
        raise DeviceError(
            f"expected a PPK2's metadata, lines like 'R0: 1003.35', got {reply[:60]!r}; is it a PPK2, and its "
            "first port? The second is a shell"
        )
    return Metadata(modifiers, defaulted, said)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

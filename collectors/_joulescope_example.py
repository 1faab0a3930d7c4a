"""One made-up JS220, with the calls of ``pyjoulescope_driver.Driver`` that the collector makes: for trying it without one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from melt_stream.clock import monotonic, utc_ns
from melt_stream.collectors._joulescope import EPOCH_NS, HZ

PATH = "u/js220/000000"
EACH_S = 0.02
FIRST = 1_000_000
"""Sample id of its beginning."""
VALUES = {"i": 0.5, "v": 5.0, "p": 2.5}
Hear = Callable[[str, Any], None]


class Driver:
    """Delivers 0.5 A at 5 V, and an input that changes with each delivery, on a thread of its own."""

    def __init__(self) -> None:
        self._listeners: dict[str, Hear] = {}
        self._on: set[str] = set()
        self._hz = HZ
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._deliver)

    def device_paths(self) -> list[str]:
        """Return the instruments that are plugged in."""
        return [PATH]

    def open(self, _: str, mode: str | None = None) -> None:
        """Open the instrument."""
        assert mode == "defaults"
        self._thread.start()

    def publish(self, topic: str, value: Any, timeout: float | None = None) -> None:  # noqa: ARG002 - the driver's
        """Set something."""
        name = topic.removeprefix(f"{PATH}/")
        if name == "h/fs":
            self._hz = value
        if name.endswith("/ctrl"):
            signal = {name.removeprefix("s/").removesuffix("/ctrl")}
            self._on = (
                self._on | signal if value else self._on - signal
            )  # a new one: the thread goes through it

    def subscribe(self, topic: str, _: list[str], hear: Hear) -> None:
        """Have something delivered."""
        self._listeners[topic] = hear

    def close(self, _: str) -> None:
        """Close the instrument."""

    def finalize(self) -> None:
        """End the driver."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _deliver(self) -> None:
        began, sample, level = monotonic(), FIRST, 0
        while not self._ended.wait(EACH_S):
            step = HZ // self._hz
            count = ((monotonic() - began) * HZ // 10**9 - sample + FIRST) // step // 8 * 8
            level ^= 0xFF
            for name in sorted(self._on) if count else ():
                is_input = name.startswith("gpi")
                size, shown, kind = (count // 8, level, "u1") if is_input else (count, VALUES[name], "f4")
                topic = f"{PATH}/s/{name}/!data"
                self._listeners[topic](topic, _value(sample, step, np.full(size, shown, kind)))
            sample += count * step


def _value(sample: int, step: int, data: Any) -> dict[str, Any]:
    utc = ((utc_ns() - EPOCH_NS) << 30) // 10**9
    there = {"offset_time": utc, "offset_counter": sample, "counter_rate": float(HZ)}
    return {
        "sample_id": sample, "utc": utc, "field_id": 1, "index": 0, "sample_rate": HZ, "decimate_factor": step,
        "time_map": there, "data": data,
    }  # fmt: skip

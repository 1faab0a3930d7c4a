"""A look-alike of Android's ``perfetto``: ``perfetto --txt -c - -o -`` traces ``android.power`` until SIGTERM, from an emulated phone's insides.

It knows the keys of the configuration that our collector sends and refuses others, as the real one does; ``RENOUNCED`` in
its environment names words that an older Android does not know.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from melt_stream.clock import REALTIME, read_host_clocks
from melt_stream.emulators import _perfetto_trace as trace
from melt_stream.emulators._phone_power import boottime_ns

KEYS = (
    "buffers size_kb fill_policy data_sources config name android_power_config battery_poll_ms battery_counters collect_power_rails "
    "write_into_file file_write_period_ms flush_period_ms duration_ms builtin_data_sources snapshot_interval_ms"
)
COUNTERS = {"CHARGE": 1, "CAPACITY_PERCENT": 2, "CURRENT": 3, "CURRENT_AVG": 4, "VOLTAGE": 7}
_CHANNEL = re.compile(r"CH\d+\(T=\d+\)\[(\S+)\], (\d+)")
_NAME = re.compile(r"\S+\((\S+?)\):(\S+)")


def main(arguments: list[str]) -> int:
    """Trace; return the exit status."""
    inside, options = Path(arguments[0]), arguments[1:]
    if options != ["--txt", "-c", "-", "-o", "-"]:
        sys.stderr.write(f"Usage: perfetto --txt -c - -o -, got {options}\n")
        return 1
    text = sys.stdin.read()
    unknown = os.environ.get("RENOUNCED", "").split()
    for word in re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"]*"', "", text)):
        known = word in KEYS.split() or word in {"true", "RING_BUFFER"} or word.startswith("BATTERY_COUNTER_")
        if not known or word in unknown:
            sys.stderr.write(f"-:1:1 error: Unexpected value '{word}'\n")
            return 1
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    Tracing(
        inside,
        poll_ms=_number(text, "battery_poll_ms", 1000),
        snapshot_ms=_number(text, "snapshot_interval_ms", 10_000),
        counters=[COUNTERS[name] for name in re.findall(r"BATTERY_COUNTER_(\w+)", text)],
        rails="collect_power_rails: true" in text,
    ).run(stop)
    return 0


@dataclass
class Tracing:
    """One trace."""

    inside: Path
    poll_ms: int
    snapshot_ms: int
    counters: list[int]
    rails: bool

    def run(self, stop: threading.Event) -> None:
        """Write it out until told to stop."""
        first, shown = True, 0
        while first or not stop.wait((self.poll_ms - boottime_ns() // 1_000_000 % self.poll_ms) / 1000):
            now = boottime_ns()
            if now - shown >= self.snapshot_ms * 1_000_000:
                shown = now
                _write(trace.packet(_clocks(), sequence=1))
            self._poll(now, first=first)
            first = False
            sys.stdout.buffer.flush()
        _write(trace.packet(trace.stats(), sequence=1))
        sys.stdout.buffer.flush()

    def _poll(self, now: int, *, first: bool) -> None:
        values = {kind: value for kind, value in _battery(self.inside).items() if kind in self.counters}
        if values:
            _write(trace.packet(trace.battery(now, values), sequence=2, dropped=first))
        if self.rails and (chips := _chips(self.inside)):
            names = {index: about for index, about, _, _ in chips} if first else {}
            energies = [(index, ms, uws) for index, _, ms, uws in chips]
            _write(trace.packet(trace.rails(now, names, energies), sequence=2))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def _clocks() -> bytes:
    wall = next(reading.tick for reading in read_host_clocks() if reading.clock == REALTIME)
    return trace.clocks({trace.BOOTTIME: boottime_ns(), trace.REALTIME: wall})


def _battery(inside: Path) -> dict[int, int | float]:
    microamps, microvolts, capacity, left = map(int, (inside / "gauge").read_text().split())
    return {1: left, 2: float(capacity), 3: microamps, 4: microamps, 7: microvolts}


def _chips(inside: Path) -> list[tuple[int, tuple[str, str, int], int, int]]:
    """Each rail's index, name, moment (ms) and counter (uWs)."""
    found: list[tuple[int, tuple[str, str, int], int, int]] = []
    for folder in sorted((inside / "odpm").glob("iio:device*")):
        subsystems = dict(_NAME.findall((folder / "available_rails").read_text()))
        rate = round(float((folder / "sampling_rate").read_text()))
        stamp, *lines = (folder / "energy_value").read_text().splitlines()
        for rail, energy in _CHANNEL.findall("\n".join(lines)):
            about = rail, subsystems[rail], rate
            found.append((len(found), about, int(stamp.removeprefix("t=")), int(energy)))
    return found


def _number(text: str, key: str, default: int) -> int:
    match = re.search(rf"\b{key}: (\d+)", text)
    return int(match[1]) if match else default


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How busy the GPU of a Jetson or a phone is, and how fast it runs, wherever its driver says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import text, why_not
from melt_stream.errors import DeviceError, Transient
from melt_stream.outlet import Row
from melt_stream.sensor import Files, FileSensor, Find, finder, read_files
from melt_stream.stream import Stream
from melt_stream.units import HZ, PERCENT

KGSL, MALI = "sys/class/kgsl/kgsl-3d0", "sys/class/misc/mali0/device"
TENSOR = "sys/devices/platform/*.mali"
"""Where Pixels with a Tensor have it, readable there when the link above is not."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LOAD_OF = re.compile(r"(?:utili[sz]ation\s*[=:]\s*)?(\d+(?:\.\d+)?)\s*(?:%|@\d+Hz)?")
_BUSY = re.compile(r"(\d+)\s+(\d+)")


def percent(word: str) -> float | None:
    """``12 %``, ``12``, ``utilization=12`` or devfreq's ``12@800000000Hz``; None beyond 100, where it counts something else."""
    match = _LOAD_OF.fullmatch(word)
    return float(match[1]) if match and float(match[1]) <= 100 else None


def permille(word: str) -> float | None:
    """``120`` of 1000."""
    return float(word) / 10 if _NUMBER.fullmatch(word) and float(word) <= 1000 else None


def busy_of_total(word: str) -> float | None:
    """KGSL's ``busy total``, us since the read before; None where no time was counted (the GPU slept)."""
    match = _BUSY.fullmatch(word)
    return 100 * int(match[1]) / int(match[2]) if match and 0 < int(match[2]) >= int(match[1]) else None


def hertz(word: str) -> float | None:
    """A frequency in Hz, kHz or MHz, which its size tells: GPUs run at 10 MHz to 10 GHz."""
    if not _NUMBER.fullmatch(word):
        return None
    value = float(word)
    return value * (1e6 if value < 1e4 else 1e3 if value < 1e7 else 1.0)


def kilohertz(word: str) -> float | None:
    """A frequency in kHz, however low."""
    return float(word) * 1e3 if _NUMBER.fullmatch(word) else None


class Source(NamedTuple):
    """One way to learn a number: the first path that is there, of those that mean the same."""

    gpu: str
    column: str
    meaning: Callable[[str], float | None]
    paths: tuple[str, ...]


_TEGRA = "[15]7000000.*"
"""Orin, Xavier and TX2 have it at 17000000, Nano and TX1 at 57000000."""
SOURCES = (
    Source("tegra", "load", permille, (
        "sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", f"sys/devices/{_TEGRA}/load",
        f"sys/devices/platform/{_TEGRA}/load", f"sys/devices/platform/bus@0/{_TEGRA}/load",
        f"sys/class/devfreq/{_TEGRA}/device/load",
    )),
    Source("tegra", "frequency", hertz, (f"sys/class/devfreq/{_TEGRA}/cur_freq", f"sys/devices/gpu.0/devfreq/{_TEGRA}/cur_freq")),
    Source("tegra", "frequency", hertz, ("sys/class/devfreq/gpu-gpc-0/cur_freq",)),  # Thor
    Source("emc", "frequency", hertz, ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")),
    Source("emc", "frequency", hertz, ("sys/class/devfreq/bwmgr/cur_freq",)),  # Thor, without root
    Source("emc", "active", kilohertz, ("sys/kernel/debug/cactmon/mc_all", "sys/kernel/actmon_avg_activity/mc_all")),
    Source("adreno", "load", percent, (f"{KGSL}/gpu_busy_percentage",)),
    Source("adreno", "load", busy_of_total, (f"{KGSL}/gpubusy",)),
    Source("adreno", "frequency", hertz, (f"{KGSL}/gpuclk", f"{KGSL}/clock_mhz")),
    Source("adreno", "frequency", hertz, (f"{KGSL}/devfreq/cur_freq",)),
    Source("mali", "load", percent, (f"{MALI}/utilization", f"{MALI}/utilisation", f"{TENSOR}/utilization")),
    Source("mali", "load", percent, ("sys/kernel/gpu/gpu_busy",)),
    Source("mali", "load", percent, ("sys/class/devfreq/*mali*/load", "sys/class/devfreq/*.gpu/load")),
    Source("mali", "frequency", hertz, (f"{MALI}/clock", f"{MALI}/cur_freq", f"{TENSOR}/cur_freq")),
    Source("mali", "frequency", hertz, ("sys/kernel/gpu/gpu_clock",)),
    Source("mali", "frequency", hertz, ("sys/class/devfreq/*mali*/cur_freq",)),
)  # fmt: skip
"""Best first: of those that can be read, the first that says something counts."""


@dataclass
class Gpu(FileSensor):
    """Load and clock of a SoC's GPU, and of a Jetson's memory controller, a row each; what nothing tells is null."""

    stream = Stream("soc_gpu", gpu=str, load=PERCENT, frequency=HZ)

    _there: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def files(self, find: Find) -> Mapping[str, str]:
        found = ((number, _first(source, find)) for number, source in enumerate(SOURCES))
        self._there = {f"{SOURCES[number].gpu}/{number}": path for number, path in found if path}
        return self._there

    def parse(self, files: Files) -> list[Row]:
        if rows := list(_rows(files)):
            return rows
        kind = DeviceError if self.first is None else Transient
        raise kind(f"GPU: expected a load or a frequency, got none; {why_not(files)}")

    def facts(self) -> Mapping[str, Any]:
        """Return which files of the table are there."""
        return {
            "soc_gpu": {path: SOURCES[int(key.partition("/")[2])].column for key, path in self._there.items()}
        }

    def check(self) -> Health:
        paths = self.files(finder(self.root))
        if not paths:
            return Health(
                False, f"none of its files is below {self.root}", "a Jetson, or a phone with Adreno or Mali"
            )
        files = read_files(self.root, paths)
        told = [
            f"{row['gpu']} {' and '.join(n for n in ('load', 'frequency') if row[n] is not None)}"
            for row in _rows(files)
        ]
        if not told:
            return Health(
                False, f"no load or frequency can be read: {why_not(files)}", "root, or an older Android"
            )
        return Health(True, "; ".join(told))

    @staticmethod
    def example() -> dict[str, Any]:
        tree = {
            "sys/devices/platform/17000000.gpu/load": "870",
            "sys/class/devfreq/17000000.gpu/cur_freq": "930750000",
            "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000",
            "sys/kernel/debug/cactmon/mc_all": "799750",
        }
        return {"kind": "files", "tree": tree, "config": {}}


def _first(source: Source, find: Find) -> str | None:
    return next((path for pattern in source.paths for path in find(pattern)), None)


def _rows(files: Files) -> Iterator[Row]:
    """Return a row for each GPU of which anything can be read."""
    seen: dict[str, dict[str, float]] = {}
    for key in files:
        source = SOURCES[int(key.partition("/")[2])]
        if (value := source.meaning(text(files, key) or "")) is not None:
            seen.setdefault(source.gpu, {}).setdefault(source.column, value)
    for gpu, values in seen.items():
        load, frequency = values.get("load"), values.get("frequency")
        if (
            "active" in values and frequency
        ):  # how many of its cycles the memory controller worked in, as a frequency
            load = min(100.0, 100 * values["active"] / frequency)
        if load is not None or frequency is not None:
            yield {"gpu": gpu, "load": load, "frequency": frequency}

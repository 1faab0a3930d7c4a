"""Clock frequencies and governors of the CPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._sysfs import health, parts, text, why_not
from melt_stream.errors import Transient
from melt_stream.outlet import Row
from melt_stream.sensor import Constant, Files, FileSensor, Find
from melt_stream.stream import Stream
from melt_stream.units import HZ

CPUS = "sys/devices/system/cpu"
NAMES = ("scaling_cur_freq", "scaling_max_freq", "scaling_governor")
MEMBERS = "related_cpus"
_FOLDER = re.compile(r"(?:policy|cpu)(\d+)")


@dataclass
class Cpufreq(FileSensor):
    """One row a frequency policy: the CPUs that share a clock, named by the first of them.

    ``limit`` is the highest frequency allowed now; a thermal governor lowers it.
    """

    stream = Stream("cpufreq", cpu=int, cpus=str, frequency=HZ, limit=HZ, governor=str)

    def files(self, find: Find) -> Mapping[str, str]:
        policies = find(f"{CPUS}/cpufreq/policy*/scaling_cur_freq")  # kernels before 4.3 have a folder a CPU
        folders = [
            p.rpartition("/")[0] for p in policies or find(f"{CPUS}/cpu[0-9]*/cpufreq/scaling_cur_freq")
        ]
        return {
            f"{_first_cpu(folder)}/{name}": f"{folder}/{name}" for folder in folders for name in NAMES
        } | {f"{_first_cpu(folder)}/{MEMBERS}": Constant(f"{folder}/{MEMBERS}") for folder in folders}

    def parse(self, files: Files) -> Iterator[Row]:
        cpus = sorted(int(part) for part in parts(files, "scaling_cur_freq"))
        read = {cpu: files.number(f"{cpu}/scaling_cur_freq", 1e3) for cpu in cpus}
        if not any(frequency is not None for frequency in read.values()):
            raise Transient(f"no CPU's scaling_cur_freq could be read: {why_not(files)}")
        for cpu, frequency in read.items():
            yield {
                "cpu": cpu,
                "cpus": text(files, f"{cpu}/{MEMBERS}"),
                "frequency": frequency,
                "limit": files.number(f"{cpu}/scaling_max_freq", 1e3),
                "governor": text(files, f"{cpu}/scaling_governor"),
            }

    def check(self) -> Health:
        return health(
            self,
            "frequency policy",
            f"{CPUS}/cpufreq",
            "bare metal with a cpufreq driver: virtual machines have none",
        )

    @staticmethod
    def example() -> dict[str, Any]:
        little = ("1804000", "1804800", "schedutil", "0 1 2 3")
        big = ("2841600", "2841600", "schedutil", "4 5 6 7")
        tree = {
            f"{CPUS}/cpufreq/policy{first}/{name}": value
            for first, values in ((0, little), (4, big))
            for name, value in zip((*NAMES, MEMBERS), values, strict=True)
        }
        return {"kind": "files", "tree": tree, "config": {}}


def _first_cpu(folder: str) -> int:
    return int(_FOLDER.findall(folder)[-1])

"""Where a table was measured: the machine and the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "melt-stream", "numpy", "numba", "pyarrow", "duckdb", "trio", "pandas", "polars",
)  # fmt: skip


def facts() -> dict[str, str]:
    """What a reader must know to compare a table with another."""
    return {
        "when": datetime.now(UTC).date().isoformat(),
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores seen, load {os.getloadavg()[0]:.1f} when the benches began",
        "memory": f"{memory_bytes() / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def cpu_model() -> str:
    """The first processor's name."""
    return _field(Path("/proc/cpuinfo").read_text().splitlines(), "model name") or platform.machine()


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _field(lines: Iterable[str], name: str) -> str | None:
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)

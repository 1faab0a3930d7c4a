"""The machine and the software a run was made with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any


def host_facts(root: str = "/") -> dict[str, Any]:
    """Return what is known of this machine; a fact that cannot be read is left out."""
    base = Path(root)
    uname = platform.uname()
    facts = {
        "name": uname.node,
        "system": _after(base / "etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "kernel": f"{uname.system} {uname.release}",
        "machine": uname.machine,
        "cpu": _after(base / "proc/cpuinfo", r"^(?:model name|Model|Hardware)\s*:\s*(.*)$"),
        "cpus": os.cpu_count(),
        "memory_kb": _number(_after(base / "proc/meminfo", r"^MemTotal:\s*(\d+)")),
        "governors": _governors(base),
        "boot_id": _text(base / "proc/sys/kernel/random/boot_id"),
        "board": _text(base / "proc/device-tree/model") or _text(base / "sys/class/dmi/id/product_name"),
        "python": platform.python_version(),
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [])}


def versions(distribution: str = "melt-stream") -> dict[str, str]:
    """Return the installed versions of ``distribution`` and of what it requires, without importing any of it."""
    try:
        names = [_name(requirement) for requirement in importlib.metadata.requires(distribution) or ()]
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {name: version for name in (distribution, *names) if (version := _version(name))}


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None  # of an extra that is not installed


def _governors(base: Path) -> list[str]:
    paths = base.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return sorted({text for path in paths if (text := _text(path))})


def _after(path: Path, pattern: str) -> str | None:
    found = re.search(pattern, _text(path) or "", re.MULTILINE)
    return found[1].strip() if found else None


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0 \n")
    except OSError:
        return None

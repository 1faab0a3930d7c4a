"""What runs were made on and in, from their manifests: the rows of the views ``devices`` and ``conditions``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from melt_stream.analysis.catalogue import Entry

TEXT, WHOLE, REAL, FLAG = pa.utf8(), pa.int64(), pa.float64(), pa.bool_()
DEVICES = pa.schema([
    ("run", TEXT), ("device", TEXT), ("link", TEXT), ("address", TEXT), ("model", TEXT), ("soc", TEXT), ("os", TEXT), ("kernel", TEXT),
    ("abi", TEXT), ("cores", WHOLE), ("memory_bytes", WHOLE), ("root", FLAG), ("loop", TEXT), ("error", TEXT),
])  # fmt: skip
CONDITIONS = pa.schema([("run", TEXT), ("device", TEXT), ("name", TEXT), ("value", REAL), ("text", TEXT)])


def devices(entries: Iterable[Entry]) -> pa.Table:
    """One row a device of a run, this machine (``host``) first."""
    rows: list[dict[str, Any]] = []
    for entry in entries:
        told = {"host": _host(entry["host"]), **entry["devices"]}
        rows += [{**said, "run": entry["id"], "device": name} for name, said in told.items()]
    return pa.Table.from_pylist(rows, DEVICES)


def conditions(entries: Iterable[Entry]) -> pa.Table:
    """One row a condition of a run."""
    rows = [
        {"run": entry["id"], "device": device, "name": name, "value": _number(value), "text": _text(value)}
        for entry in entries
        for device, name, value in _flat(entry["conditions"])
    ]
    return pa.Table.from_pylist(rows, CONDITIONS)


def _host(facts: dict[str, Any]) -> dict[str, Any]:
    memory_kb = facts.get("memory_kb")
    return {
        "link": "host", "address": facts.get("name"), "model": facts.get("board"), "soc": facts.get("cpu"),
        "os": facts.get("system"), "kernel": facts.get("kernel"), "abi": facts.get("machine"), "cores": facts.get("cpus"),
        "memory_bytes": memory_kb and memory_kb * 1024,
    }  # fmt: skip


def _flat(told: dict[str, Any]) -> Iterator[tuple[str | None, str, Any]]:
    for name, value in told.items():
        if isinstance(value, dict):
            yield from ((name, inner, each) for inner, each in value.items())
        else:
            yield None, name, value


def _number(value: Any) -> float | None:
    return None if isinstance(value, bool | str) else float(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

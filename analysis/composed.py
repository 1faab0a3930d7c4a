"""Views made of other views: what each needs, and what stands in for a stream that no run has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from melt_stream.analysis.relations import File
from melt_stream.analysis.sandbox import Named

STREAMS = {
    "process": {"rss": "BIGINT"},
    "thermal": {"celsius": "DOUBLE"},
    "throttle": {"cooling": "VARCHAR", "state": "BIGINT"},
}
"""Streams that these views look at, with the columns that they use of each, besides run, device and t_ns."""
_EVERY = {"run": "VARCHAR", "device": "VARCHAR", "t_ns": "BIGINT"}
COMPOSED = {
    "charge": frozenset({"phases", "power"}),
    "qoe": frozenset({"requests", "tokens", "process"}),
    "sustained": frozenset({"requests", "phases", "thermal", "throttle"}),
}
"""By name: the views that each is made of."""


def expanded(named: Named) -> Named:
    """Return what a query names with what the composed views among it need."""
    return replace(
        named, tables=named.tables.union(*(COMPOSED[view] for view in COMPOSED.keys() & named.tables))
    )


def looked_at(wanted: Collection[str], by_stream: Mapping[str, Sequence[File]]) -> Iterator[str]:
    """Yield SQL that makes ``_<stream>`` of each stream that the wanted views look at: empty where no run has it with these columns."""
    needed = frozenset[str]().union(*(COMPOSED[view] for view in COMPOSED if view in wanted))
    for stream in sorted(needed & STREAMS.keys()):
        types = {**_EVERY, **STREAMS[stream]}
        have = {
            text.partition(" ")[0]
            for file in by_stream.get(stream, ())
            for text in file.stored["columns"].split(",")
        }
        if STREAMS[stream].keys() <= have:
            yield f"CREATE VIEW _{stream} AS SELECT {', '.join(types)} FROM {stream}"
        else:
            empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in types.items())
            yield f"CREATE VIEW _{stream} AS SELECT {empty} WHERE false"

"""Events as they were recorded -> requests, loads and named phases, on the run's time line.

Nothing here raises because events are missing, doubled or out of order: what can be told is told, and the request
or phase is marked ``partial``. An event on a clock that cannot be placed counts, but has no time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from melt_stream.analysis.clocks import Key, Maps
from melt_stream.analysis.tokens import Tokens, tokens_of
from melt_stream.clock import HOST
from melt_stream.events import EVENTS

Array = np.ndarray[Any, Any]
HOST_KEY: Key = (HOST.name, 0)
ENGINE = "run"
"""Instance whose phases hold for every device."""


@dataclass
class Log:
    """All events of a run in order of time; row k of every array and of ``rows`` is event k."""

    rows: pa.Table
    t: Array
    """ns since the run's start; meaningless where not ``placed``."""
    placed: Array
    clock: Array
    """Index into ``keys``."""
    keys: list[Key]
    source: Array
    """Index into ``sources``."""
    sources: list[tuple[str, str]]
    """Instance and device."""
    start_ns: int = 0
    """Host ns at which ``t`` is 0."""
    kind: Array = field(init=False)
    request: Array = field(init=False)

    def __post_init__(self) -> None:
        self.kind = self.rows["kind"].to_numpy(zero_copy_only=False)
        self.request = self.ints("request")

    def ints(self, column: str) -> Array:
        """An integer column, -1 where null."""
        return np.asarray(self.rows[column].fill_null(-1).to_numpy(), np.int64)

    def on_host(self) -> Array:
        """Tell which events are on the host's own clock."""
        return np.array([key == HOST_KEY for key in self.keys], bool)[self.clock]

    def of(self, column: str, row: int) -> Any:
        """One value; None where null."""
        return self.rows[column][row].as_py()


@dataclass
class Span:
    """An interval and the clocks that its ends are known on."""

    start: int
    stop: int
    start_key: Key = HOST_KEY
    stop_key: Key = HOST_KEY


@dataclass
class Request:
    """What one request's events say; times in ns since the run's start, None where nothing says."""

    number: int
    source: str
    device: str
    name: str | None = None
    involves: frozenset[str] = frozenset()
    """Other devices that have a part in it."""
    detail: dict[str, Any] = field(default_factory=dict)
    sent: int | None = None
    slot: int | None = None
    """When the server started on the prompt."""
    slot_key: Key = HOST_KEY
    end: int | None = None
    error: str | None = None
    windows: list[Span] = field(default_factory=list)
    tokens: Tokens | None = None
    first_arrival: int | None = None
    """When the client saw its first token."""
    prompt: int | None = None
    cached: int | None = None
    processed: int | None = None
    partial: bool = False

    @property
    def warmup(self) -> bool:
        """Asked to warm up, not to be measured."""
        return bool(self.detail.get("warmup"))


@dataclass
class Named(Span):
    """A load or a phase that somebody named."""

    phase: str = "other"
    name: str | None = None
    device: str | None = None
    """None: every device."""
    partial: bool = False


def read(tables: Iterable[pa.Table], maps: Maps, start_ns: int) -> Log:
    """Put the events of every source on one time line, in order."""
    parts, times, placed, clocks, sources = [], [], [], [], []
    keys: dict[Key, int] = {HOST_KEY: 0}
    names: dict[tuple[str, str], int] = {}
    for table in tables:
        told = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        which, t, good = _place(table, told.get("clock") or HOST.name, maps, keys)
        parts.append(_columns(table))
        times.append(t - start_ns)
        placed.append(good)
        clocks.append(which)
        source = (told.get("instance", ""), told.get("device", "host"))
        sources.append(np.full(len(table), names.setdefault(source, len(names))))
    rows = pa.concat_tables(parts) if parts else _columns(EVENTS.schema.empty_table())
    t = _joined(times)
    order = np.argsort(t, kind="stable")
    return Log(
        rows.take(pa.array(order)).combine_chunks(), t[order], _joined(placed).astype(bool)[order], _joined(clocks)[order],
        list(keys), _joined(sources)[order], list(names), start_ns,
    )  # fmt: skip


def needed(tables: Iterable[pa.Table]) -> list[Key]:
    """Return the clocks and epochs that the events are on."""
    found: dict[Key, None] = {}
    for table in tables:
        clock = (table.schema.metadata or {}).get(b"clock", b"host").decode() or HOST.name
        for epoch in np.unique(_epochs(table)):
            found[(clock, int(epoch))] = None
    return list(found)


def starts(tables: Sequence[pa.Table]) -> pa.Table | None:
    """Return what causes say as clock readings: a server's slot starts after its request was sent.

    Columns as of ``run.readings``, less the clock's own facts.
    """
    sent: dict[int, int] = {}
    slots: list[tuple[Key, int, int]] = []
    for table in tables:
        clock = (table.schema.metadata or {}).get(b"clock", b"host").decode() or HOST.name
        kinds, requests = table["kind"].to_pylist(), table["request"].to_pylist()
        wanted = "request_sent" if clock == HOST.name else "prefill_start"
        epochs, ticks = _epochs(table), table["tick"].to_pylist()
        for k in [k for k, kind in enumerate(kinds) if kind == wanted and requests[k] is not None]:
            if clock == HOST.name:
                sent.setdefault(requests[k], ticks[k])
            else:
                slots.append(((clock, int(epochs[k])), ticks[k], requests[k]))
    known = [(key, tick, sent[request]) for key, tick, request in slots if request in sent]
    if not known:
        return None
    return pa.table({
        "clock_of": [key[0] for key, _, _ in known], "epoch_of": [key[1] for key, _, _ in known],
        "count": [tick for _, tick, _ in known], "resolution": [0] * len(known),
        "not_before": [before for _, _, before in known], "not_after": pa.nulls(len(known), pa.int64()),
        "kind": ["cause"] * len(known),
    })  # fmt: skip


def requests(log: Log) -> list[Request]:
    """Return every request that any event names, in order of number."""
    numbered = np.flatnonzero(log.request >= 0)
    numbered = numbered[np.argsort(log.request[numbered], kind="stable")]
    numbers, first = np.unique(log.request[numbered], return_index=True)
    groups = np.split(numbered, first[1:]) if len(numbers) else []  # of nothing, split makes one group
    return [_request(log, int(n), rows) for n, rows in zip(numbers, groups, strict=True)]


def named(log: Log, stop: int) -> list[Named]:
    """Return loads and named phases; one without its end runs to the next of its kind, or to ``stop``."""
    found: list[Named] = []
    begun: dict[tuple[Any, ...], list[int]] = {}
    for k in np.flatnonzero(
        np.isin(log.kind, ("phase_start", "phase_end", "load_start", "load_end")) & log.placed
    ):
        kind = str(log.kind[k])
        what, edge = kind.split("_")
        name = log.of("name", int(k)) if what == "phase" else None
        key = (int(log.source[k]), what, name)
        if edge == "start":
            begun.setdefault(key, []).append(int(k))
        elif begun.get(key):
            found.append(_named(log, begun[key].pop(), int(k), int(log.t[k]), what))
        else:
            found.append(_named(log, int(k), int(k), int(log.t[k]), what, partial=True))
    for (_, what, _), rows in begun.items():
        found += [_named(log, k, None, stop, what, partial=True) for k in rows]
    return sorted(found, key=lambda p: (p.start, p.stop))


def _named(log: Log, start: int, stop: int | None, until: int, what: str, *, partial: bool = False) -> Named:
    name = log.of("name", start)
    instance, device = log.sources[log.source[start]]
    known = ("baseline", "warmup", "tail", "marker", "load")
    phase = "load" if what == "load" else name if name in known else "other"
    stop_key = log.keys[log.clock[stop]] if stop is not None else HOST_KEY
    return Named(
        int(log.t[start]), max(until, int(log.t[start])), log.keys[log.clock[start]], stop_key, phase, name,
        None if instance == ENGINE else device, partial,
    )  # fmt: skip


def _request(log: Log, number: int, rows: Array) -> Request:
    instance, device = log.sources[log.source[rows[0]]]
    found = Request(number, instance, device)
    kinds = log.kind[rows]
    for kind, take in _TAKERS.items():
        for k in rows[kinds == kind]:
            take(found, log, int(k))
    _windows(found, log, rows[kinds == "window_start"], rows[kinds == "window_end"])
    tokens = rows[kinds == "token"]
    if len(tokens):
        found.tokens = tokens_of(log, tokens)
        found.partial |= found.tokens.partial
        seen = [a for a in log.ints("arrival_ns")[tokens] if a >= 0]
        found.first_arrival = int(min(seen)) - log.start_ns if seen else None
    if not len(found.windows) and (found.sent is None or (found.end is None and found.error is None)):
        found.partial = True
    told = found.detail.get("usage") or {}
    found.prompt = found.prompt if found.prompt is not None else _number(told.get("prompt_tokens"))
    if found.cached is None:
        found.cached = _number((told.get("prompt_tokens_details") or {}).get("cached_tokens"))
    if found.processed is None and found.prompt is not None:
        found.processed = found.prompt - (found.cached or 0)
    return found


def _sent(found: Request, log: Log, k: int) -> None:
    found.name = found.name or log.of("name", k)
    found.detail = _json(log.of("detail", k)) | found.detail
    if log.placed[k]:
        found.partial |= found.sent is not None
        found.sent = int(log.t[k]) if found.sent is None else found.sent


def _slot(found: Request, log: Log, k: int) -> None:
    _progress(found, log, k)
    if log.placed[k] and found.slot is None:
        found.slot, found.slot_key = int(log.t[k]), log.keys[log.clock[k]]


def _progress(found: Request, log: Log, k: int) -> None:
    """``prompt_processed`` counts cached tokens too, as llama.cpp does: what was worked on is the difference."""
    total, cached, done = (log.of(f"prompt_{c}", k) for c in ("total", "cached", "processed"))
    found.prompt = total if total is not None else found.prompt
    found.cached = cached if cached is not None else found.cached
    if done is not None and log.kind[k] == "prefill_progress":
        found.processed = max(found.processed or 0, done - (cached or 0))


def _ended(found: Request, log: Log, k: int) -> None:
    found.detail |= _json(log.of("detail", k))
    if log.kind[k] == "request_error":
        found.error, found.partial = str(found.detail.get("error") or log.of("detail", k) or "failed"), True
    elif error := found.detail.get("error"):
        found.error = str(error)
    if log.placed[k]:
        found.partial |= found.end is not None and log.kind[k] == "request_end"
        found.end = int(log.t[k]) if found.end is None else found.end


_TAKERS = {
    "request_sent": _sent, "prefill_start": _slot, "prefill_progress": _progress, "request_end": _ended,
    "request_error": _ended,
}  # fmt: skip


def _windows(found: Request, log: Log, begun: Array, ended: Array) -> None:
    for k in (*begun, *ended):
        found.name = found.name or log.of("name", int(k))
        found.detail |= _json(log.of("detail", int(k)))
    begun, ended = begun[log.placed[begun]], ended[log.placed[ended]]
    found.partial |= len(begun) != len(ended)
    for a, b in zip(begun, ended, strict=False):
        keys = log.keys[log.clock[a]], log.keys[log.clock[b]]
        found.windows.append(Span(int(log.t[a]), max(int(log.t[a]), int(log.t[b])), *keys))
    if not found.windows and len(begun) and found.end is not None:
        found.windows.append(
            Span(int(log.t[begun[0]]), max(found.end, int(log.t[begun[0]])), log.keys[log.clock[begun[0]]])
        )


def _place(table: pa.Table, clock: str, maps: Maps, keys: dict[Key, int]) -> tuple[Array, Array, Array]:
    ticks = table["tick"].to_numpy().astype(np.int64)
    epochs = _epochs(table)
    which, t, good = (
        np.zeros(len(ticks), np.int64),
        np.zeros(len(ticks), np.int64),
        np.zeros(len(ticks), bool),
    )
    for epoch in np.unique(epochs):
        mine = epochs == epoch
        host = maps.to_host(clock, int(epoch), ticks[mine])
        which[mine] = keys.setdefault((clock, int(epoch)), len(keys))
        if host is not None:
            t[mine], good[mine] = host, True
    return which, t, good


def _epochs(table: pa.Table) -> Array:
    if "epoch" not in table.schema.names:
        return np.zeros(len(table), np.int64)
    return np.asarray(table["epoch"].fill_null(0).to_numpy(), np.int64)


def _columns(table: pa.Table) -> pa.Table:
    """Just the columns of :data:`EVENTS`, null where the table has none."""
    arrays = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(len(table), f.type)
        for f in EVENTS.schema
    ]
    return pa.table(arrays, names=EVENTS.schema.names)


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _json(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text) if text else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""Importer ``jls``: a recording of a Joulescope (or of whatever else writes .jls): current, voltage, power and inputs by sample."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import trio

from melt_stream.clock import HOST, Clock, Reading
from melt_stream.collectors._files import open_regular
from melt_stream.collectors._jls import (
    EPOCH_NS,
    LAST,
    Array,
    Gap,
    Group,
    Holes,
    groups,
    messages,
    signal,
    utc_map,
)
from melt_stream.collectors._logic import changes
from melt_stream.collectors._process import guarded
from melt_stream.errors import ConfigError, DataError
from melt_stream.events import events
from melt_stream.outlet import Outlet
from melt_stream.rail import Rail
from melt_stream.stream import Column, Stream
from melt_stream.units import A, V, W

LARGEST = 1 << 40
HEAD = 32
MAGIC = b"jlsfmt\r\n"
PATIENCE_S = 60.0
"""So long the reader may take for one block."""
UNITS = {"amps": A, "volts": V, "watts": W}
MARKS = {0: "user", 1: "text", 2: "vertical marker", 3: "horizontal marker"}


@dataclass
class Jls:
    """Imports one .jls file (version 2) and ends.

    Raises ``ConfigError`` where ``path`` holds no such file or several, ``DataError`` with the position where it is damaged, or was
    never closed. The file is not changed.
    """

    path: Path
    """The file, or the folder of one."""
    start_utc_ns: int | None = field(default=None, init=False)

    @staticmethod
    def example() -> dict[str, Any]:
        """Twenty samples of 1 A at 2 V, written by pyjls 0.17, with one entry of a UTC map."""
        return {"kind": "files", "packed": {"one.jls": _EXAMPLE}}

    async def collect(self, out: Outlet) -> None:
        if find_spec("pyjls") is None:
            raise ConfigError("expected the package pyjls, got none; try: pip install 'melt-stream[jls]'")
        path = _file(Path(self.path))
        _check_head(path)
        filler = _Filler(out, str(path))
        command = [sys.executable, "-m", "melt_stream.collectors._jls_child", str(path.resolve())]
        async with guarded() as start:
            child = await start(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert child.stdout is not None
            async with aclosing(messages(child.stdout)) as told:
                await self._fill(filler, told)
        filler.close()
        self.start_utc_ns = filler.start_utc_ns
        out.ready()

    async def _fill(self, filler: _Filler, told: AsyncGenerator[tuple[dict[str, Any], bytes], None]) -> None:
        try:
            while True:
                with trio.fail_after(PATIENCE_S):
                    message, data = await anext(told)
                if message["kind"] == "end":
                    return
                filler.take(message, data)
                await filler.out.room()
        except (StopAsyncIteration, trio.TooSlowError, ValueError, KeyError) as exc:
            raise DataError(
                f"{filler.path}, {filler.where}: expected what pyjls can read, got {type(exc).__name__} {exc} of its "
                "reader; the file is damaged, or made to harm"
            ) from exc


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.jls"))
    if len(found) != 1:
        names = ", ".join(one.name for one in found[:5]) or "none"
        raise ConfigError(f"{path}: expected one .jls file, got {names}; name it")
    return found[0]


def _check_head(path: Path) -> None:
    """See that it is one, and whole: pyjls mends in place what is not, and nobody asked for that."""
    with open_regular(path, LARGEST) as file:
        head = file.read(HEAD)
        size = file.seek(0, 2)
    if len(head) < HEAD or not head.startswith(MAGIC):
        raise DataError(f"{path}, byte 0: expected the head of a .jls file (version 2), got {head[:16]!r}")
    told = int.from_bytes(head[16:24], "little")
    if told != size:
        raise DataError(
            f"{path}, byte 16: expected a file of the {told} bytes that it tells of, got {size}: it was cut, or never closed; "
            "try: `pyjls info` on a copy, which mends it as far as it can"
        )


@dataclass
class _Filler:
    """From messages to rows."""

    out: Outlet
    path: str
    where: str = "its head"
    start_utc_ns: int | None = None
    _groups: list[Group] = field(default_factory=list)
    _streams: dict[str, Stream] = field(default_factory=dict)
    _holes: dict[str, Holes] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)
    """Sample after the last one, by group."""
    _blocks: dict[int, tuple[int, Array]] = field(default_factory=dict)
    _stretch: tuple[str, int] = ("", 0)
    _levels: dict[int, bool] = field(default_factory=dict)
    _base: int | None = None
    """UTC of the run's second 0."""

    def take(self, message: dict[str, Any], data: bytes) -> None:
        """Take a message, and the bytes that followed it."""
        match message["kind"]:
            case "file":
                self._begin(message)
            case "utc":
                group, one = self._of(message["signal"])
                if group is not None and not group.pairs:
                    group.pairs = utc_map(data, one, self.path)
            case "mark":
                self._place()
                self._mark(message)
            case "note":
                self.out.fact("note", message["text"])
            case "block":
                self._place()
                self._block(message, data)
            case _:
                raise DataError(
                    f"{self.path}, {message['where']}: expected what pyjls can read, got {message['text']}"
                )

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        for group in self._groups:
            if group.name in self._holes:
                self._gaps(group, self._holes[group.name].close(self._ends[group.name]))

    def _begin(self, message: dict[str, Any]) -> None:
        signals = [signal(told, self.path) for told in message["signals"]]
        self._groups, left_out = groups([one for one in signals if one.length])
        if not any(group.columns for group in self._groups):
            there = ", ".join(f"{one.name} ({one.units or one.kind})" for one in signals) or "none"
            raise DataError(f"{self.path}: expected a signal in A, V or W with samples, got {there}")
        self.out.fact("sources", message["sources"])
        self.out.fact("signals left out", [*left_out, *message["left_out"]])
        sources = {told["source_id"]: told for told in message["sources"]}
        for group in self._groups:
            if group.columns:
                self._declare(group, str(sources.get(group.source, {}).get("name") or "main"))

    def _declare(self, group: Group, name: str) -> None:
        columns: dict[str, Any] = {name: Column(UNITS[name], pa.float32()) for name in group.columns}
        stream = Stream(group.name, clock=group.clock, period_ns=1e9 / group.hz, **columns)
        self._streams[group.name], self._holes[group.name] = stream, Holes()
        if "watts" in columns or {"amps", "volts"} <= columns.keys():
            source = "the file says nothing of its instrument's accuracy, nor where that was wired"
            self.out.rail(stream, Rail(name, "dc_in", "gauge", instrument="meter", source=source))

    def _of(self, number: int) -> tuple[Group | None, Any]:
        for group in self._groups:
            for one in group.signals:
                if one.number == number:
                    return group, one
        return None, None

    def _place(self) -> None:
        """Tie all clocks to the run's time line, which is UTC from the first sample on: by definition, since nobody else knows."""
        if self._base is not None:
            return
        starts = [start for group in self._groups if (start := group.start()) is not None]
        self._base = min(starts, default=0)
        if starts and 0 < self._base < LAST:
            self.start_utc_ns = EPOCH_NS + _ns(self._base)
        for group in self._groups:
            ties = [(pair.sample, _ns(pair.time - self._base)) for pair in group.pairs] or [(group.first, 0)]
            for sample, at in ties:
                self.out.clock_reading(
                    Reading(group.clock, sample, not_before=at, not_after=at, kind="exact")
                )

    def _mark(self, message: dict[str, Any]) -> None:
        group, _ = self._of(message["signal"])
        values = {"kind": "mark", "name": MARKS.get(message["type"], "mark"), "text": message["text"]}
        if group is not None:
            stream = self._events(group.name.replace("main", "marks"), group.clock)
            self.out.row(stream, tick=message["at"], **values)
        elif message["signal"] == 0 and self.start_utc_ns is not None and 0 < message["at"] < LAST:
            assert self._base is not None
            self.out.row(self._events("marks_utc", HOST), tick=_ns(message["at"] - self._base), **values)

    def _events(self, name: str, clock: Clock) -> Stream:
        return self._streams.setdefault(name, events(name, clock))

    def _block(self, message: dict[str, Any], data: bytes) -> None:
        group, one = self._of(message["signal"])
        if group is None:
            return
        first, count = message["index"] + one.offset, message["count"]
        self.where = f"signal {one.number} ({one.name}), after sample {message['index'] + count}"
        if one in group.inputs.values():
            self._inputs(group, one, first, data, count)
            return
        if (stretch := (group.name, message["stretch"])) != self._stretch:
            self._flush()
            self._stretch = stretch
        self._blocks[one.number] = first, np.frombuffer(data, "<f4", count)

    def _inputs(self, group: Group, one: Any, first: int, data: bytes, count: int) -> None:
        name = next(name for name, other in group.inputs.items() if other is one)
        stream = self._streams.setdefault(name, Stream(name, clock=group.clock, role="logic", level=bool))
        at, levels = changes(data, count, self._levels.get(one.number))
        self.out.rows(stream, tick=at + first, level=levels)
        if len(levels):
            self._levels[one.number] = bool(levels[-1])

    def _flush(self) -> None:
        for group in self._groups:
            if not any(one.number in self._blocks for one in group.columns.values()):
                continue
            first, columns = group.table(self._blocks)
            missing = np.isnan(np.array(list(columns.values())))
            self._gaps(group, self._holes[group.name].feed(first, missing.any(axis=0)))
            there = ~missing.all(axis=0)
            ticks = np.arange(first, first + len(there))
            values = {
                name: pa.array(column[there], pa.float32(), from_pandas=True)
                for name, column in columns.items()
            }
            self.out.rows(self._streams[group.name], tick=ticks[there], **values)
            self._ends[group.name] = first + len(there)
        self._blocks = {}

    def _gaps(self, group: Group, gaps: Iterator[Gap]) -> None:
        reason = "samples are missing in the file"
        for gap in gaps:
            self.out.gap(self._streams[group.name], gap.start, gap.stop, reason, lost=gap.lost)


def _ns(time: int) -> int:
    """2^-30 s as ns."""
    return (time * 10**9) >> 30


_EXAMPLE = (
    "c-qU#DNf5R;pI}`Qjk(m*d%j+hXDo{>)Xst7|?(N5?gh7-ed)4RCz`q&VjN&#z{ppPzcg<@{<yC;uG`o@=Fp+GV}A|i}Op1l2aMv"
    "vvP_V<aHV34fPE448SbT^{2EZFrw;b0^&JPH=T`*ISg_kivmPW0E)SwI0cGn39$GlGd(Xche4h}KCJw-_y(x^FF@66KxvR4CO!J&"
    "9l-?Q!~CfU#0^k+*3^k783qBkoubZB0d*(LKL$`akXujQs5r0ynr>kJF@(y2@M+6Pp~2!0^mNY%gpp8py1xITPN^MU!A3>~x`qt$"
    "UO)t50~0hD0p&Js-6R*l0#OGGPbQ%KJwO`dhG~mJmVkm6l%8KOL)<99fS_UNnwB8Bw5TXGuY^I~kwIRzw(xNQ)V;9yRbYT50FaxF"
    "PG<#5utLOP{!#?WH$dfgt=-%4ffMRqu7Qj9sf<suEuij%`Nsh250G1}%7UIffXc)CV+i#J2(KyMb9m6CUp5FE<{t|re>ksRo4W!k"
    "5A%;Dl0Q}*U9w{XG(H%(2hJZ3hf1^~*r6OYSUz9^rx}ntXPR`040Jvy%g-rEOb1p=VGQzV3-~rvK-~)qUj+sxcs{tPZOotmEm>gx"
    "QUuDw^1)s;jgkq_@Rr~ixNv_LI=k8d>Q0z{450o1xpiu!2k#50Jj_3aP=A2%9a+migC!quK+`eIKNd*-=o6d<Z^gj;V~OOCnYX%3"
    "2U~pv16IKNDgkxp&iu}N<aQXW&RVc$C)j_ATtT(y`jvnx6F}(<h=1MShc|yjz-bm7LiW_f3=H$<{lACq4rK;L0gxL&Zb@G{dlI@o"
    "VD$nB>`CODjILh=s9yo<kL?u-YmoIf!2N;j9|ne%b3O>5n_~?%2ZTlETBl-~18vtJx#zFbn^JUhY>>=p-I(_ompRDs6ZB|%BWC<C"
    "fx`r3&Xy-KUohhb96Z#-4BPF~1u^4?2_8R{@x7<e<7Wa={m?#*KLj&=nBeiVvdQcVmhf<3K=luUVfNuE=;r)qfR(2V438do>;nK{"
    "IOcK"
)
"""Deflated, in base 85."""

"""Reads a .jls file in a process of its own: ``python -m ..._jls_child FILE``; what it holds goes to stdout.

The format is read by its maker's library (PyPI pyjls), which is written in C: what a hostile file does to it ends here.
Each message is a line of JSON; ``bytes`` in it says how many follow it. ``_jls.py`` reads them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

BLOCK = 1 << 17
"""Samples of a signal at a time; a multiple of 8, since logic signals are bits."""
MEMORY = 4 << 30
LONGEST_TEXT = 1 << 16
MOST_TEXT = 64 << 20
"""Bytes of all annotations, each counted as 100 at least."""
MOST_NOTES = 100

Message = dict[str, Any]


def main(path: str) -> None:
    """Tell all that is in the file, its samples in their order."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is none of ours
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from pyjls import Reader

    teller = Teller()
    try:
        with Reader(path) as file:
            for message, data in teller.told(file):
                _send(out, message, data)
    except (RuntimeError, ValueError, MemoryError, OSError) as exc:
        _send(out, {"kind": "error", "where": teller.where, "text": str(exc)[:200]})
    else:
        _send(out, {"kind": "end"})
    out.close()


@dataclass
class Teller:
    """Goes through a file."""

    where: str = "its head"
    """What is being read."""

    def told(self, file: Any) -> Iterator[tuple[Message, bytes]]:
        """Yield messages, and the bytes that follow them."""
        from pyjls import DataType, SignalType

        fsr = {n: one for n, one in file.signals.items() if n and one.signal_type == SignalType.FSR}
        yield _head(file, fsr), b""
        for number, one in fsr.items():
            self.where = f"the UTC map of signal {number} ({one.name})"
            yield {"kind": "utc", "signal": number}, _utc(file, number)
        self.where = "the annotations"
        yield from ((mark, b"") for mark in _marks(file, fsr))
        self.where = "the user data"
        yield from ((note, b"") for note in _notes(file))
        for alike in _alike(fsr.values()):
            first = min(one.sample_id_offset for one in alike)
            last = max(one.sample_id_offset + one.length for one in alike)
            for start in range(first, last, BLOCK):
                for one in alike:
                    is_bits = one.data_type == DataType.U1  # read from whole bytes on, or the library errs
                    yield from self._block(file, one, start, first if is_bits else one.sample_id_offset)

    def _block(self, file: Any, one: Any, start: int, offset: int) -> Iterator[tuple[Message, bytes]]:
        """What a signal has of the stretch that begins at sample ``start``."""
        index = max(start - offset, 0)
        count = min(start + BLOCK - offset, one.length) - index
        number = one.signal_id
        self.where = f"signal {number} ({one.name}), {count} samples from {index} on"
        if count > 0:
            data = file.fsr(number, index, count).tobytes()
            yield {"kind": "block", "signal": number, "stretch": start, "index": index, "count": count}, data


def _alike(signals: Iterable[Any]) -> list[list[Any]]:
    """Signals whose sample ids count the same clock."""
    found: dict[tuple[int, int], list[Any]] = {}
    for one in signals:
        found.setdefault((one.source_id, one.sample_rate), []).append(one)
    return list(found.values())


def _head(file: Any, fsr: dict[int, Any]) -> Message:
    from pyjls import DataType

    types = {DataType.F32: "f32", DataType.U1: "u1"}
    return {
        "kind": "file",
        "sources": [asdict(source) for number, source in file.sources.items() if number],
        "signals": [asdict(one) | {"data_type": types.get(one.data_type, "other")} for one in fsr.values()],
        "left_out": [one.name for number, one in file.signals.items() if number and number not in fsr],
    }


def _utc(file: Any, number: int) -> bytes:
    """All sample ids, then all their times, as int64."""
    if not file.time_map_length(number):
        return b""
    pairs = file.time_map_get(number)
    return b"".join(pairs[name].astype("<i8").tobytes() for name in ("sample_id", "timestamp"))


def _marks(file: Any, fsr: dict[int, Any]) -> list[Message]:
    """All annotations, in order: those of the file first, by time, then those of signals, by sample."""
    found: list[Message] = []
    room = MOST_TEXT

    def see(at: int, _: float, kind: int, __: int, data: object) -> bool:
        nonlocal room
        text = f"{len(data)} bytes" if isinstance(data, bytes) else str(data)[:LONGEST_TEXT]
        found.append(
            {"kind": "mark", "signal": number, "at": int(at) + offset, "type": int(kind), "text": text}
        )
        room -= max(100, len(text))
        return room < 0

    number, offset = 0, 0
    file.annotations(0, -(1 << 62), see)
    for number, one in fsr.items():
        offset = one.sample_id_offset
        file.annotations(number, 0, see)
    if room < 0:
        raise ValueError(f"more than {MOST_TEXT} bytes of annotations")
    return sorted(found, key=lambda mark: (mark["signal"] > 0, mark["at"]))


def _notes(file: Any) -> list[Message]:
    found: list[Message] = []

    def see(_: int, data: object) -> bool:
        if isinstance(data, str):
            found.append({"kind": "note", "text": data[:LONGEST_TEXT]})
        return len(found) >= MOST_NOTES

    file.user_data(see)
    return found


def _send(out: BinaryIO, message: Message, data: bytes = b"") -> None:
    out.write(json.dumps(message | {"bytes": len(data)}).encode() + b"\n" + data)
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1])

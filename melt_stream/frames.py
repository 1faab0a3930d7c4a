"""The journal's format: an Arrow IPC stream in which every batch carries a checksum.

Any Arrow library reads it. Beyond that, each batch has ``crc32`` in its custom metadata: over its row count, null
counts, buffer sizes and buffers as a reader sees them, starting from the checksum of the batch before (for the
first: of the schema). Truncation, zero-filled tails, flipped bits and lost blocks therefore end the stream at
exactly the last good batch; nothing is invented and nothing before it is lost.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_CRC = b"crc32"
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, EOFError)


class FrameWriter:
    """Turns batches of one schema into bytes; ``take`` hands over those not taken yet."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        """Rows encoded so far."""
        self._schema = schema
        self._crc = zlib.crc32(schema.serialize())
        self._bytes = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._bytes, schema)

    def add(self, batch: pa.RecordBatch) -> None:
        """Encode one batch; it must have the writer's schema."""
        # Slices, unneeded bitmaps and padding vanish on the way through IPC; the checksum is over what a reader
        # will see, so go through it once more than needed: 43 M rows/s of 3 columns in batches of 2,500 rows.
        seen = pa.ipc.read_record_batch(batch.serialize(), self._schema)
        self._crc = _checksum(seen, self._crc)
        self._writer.write_batch(seen, custom_metadata={_CRC: str(self._crc)})
        self.rows += batch.num_rows

    def end(self) -> None:
        """Encode the end marker."""
        self._writer.close()

    def take(self) -> bytes:
        """Return what was encoded since the last call."""
        taken = self._bytes.getvalue()
        self._bytes.seek(0)
        self._bytes.truncate()
        return taken


class FrameReader:
    """Iterates over a journal's good batches, in any state the file may be in; never raises for damage.

    After the iteration ``rows`` is what was read, ``clean`` whether the end marker closed the file, and ``damage``
    says what stopped the reading otherwise. Raises ``FileNotFoundError`` where there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows, self.clean, self.damage = 0, False, ""

    @property
    def schema(self) -> pa.Schema | None:
        """The schema, None where the file does not even hold that. It is proven only by the first good batch."""
        try:
            with pa.memory_map(str(self.path)) as file:
                return pa.ipc.open_stream(file).schema
        except FileNotFoundError:
            raise
        except _DAMAGE:
            return None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self.rows, self.clean, self.damage = 0, False, ""
        if not self.path.stat().st_size:
            self.damage = "empty file: the first write never arrived"
            return
        with pa.memory_map(str(self.path)) as file:
            yield from self._batches(file)

    def _batches(self, file: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
        try:
            stream = pa.ipc.open_stream(file)
            crc = zlib.crc32(stream.schema.serialize())
        except _DAMAGE as exc:
            self.damage = f"unreadable schema: {_first_line(exc)}"
            return
        while True:
            at = file.tell()
            try:
                batch, metadata = stream.read_next_batch_with_custom_metadata()
                crc = _checksum(batch, crc)
                good = metadata is not None and int(metadata[_CRC]) == crc
            except StopIteration:
                self.clean = _ends(file)
                if not self.clean:
                    self.damage = f"no end marker at byte {at:,}"
                return
            except _DAMAGE as exc:
                self.damage = f"torn batch at byte {at:,}: {_first_line(exc)}"
                return
            if not good:
                self.damage = f"wrong checksum in the batch at byte {at:,}"
                return
            self.rows += batch.num_rows
            yield batch


def _ends(file: pa.MemoryMappedFile) -> bool:
    # A zero-filled tail also reads as an end; only the full marker at the very end of the file counts.
    at, size = file.tell(), file.size()
    return bool(at == size and file.read_at(len(_END), at - len(_END)) == _END)


def _checksum(batch: pa.RecordBatch, start: int) -> int:
    # zlib's crc32 runs at 2.5 GB/s here (adler32 3.6, sha1 1.9, blake2b 0.7): 10 M rows/s of 24 bytes cost 10 %.
    buffers = [buffer for column in batch.columns for buffer in column.buffers()]
    sizes = [-1 if buffer is None else buffer.size for buffer in buffers]
    nulls = [column.null_count for column in batch.columns]
    head = struct.pack(f"<{1 + len(nulls) + len(sizes)}q", batch.num_rows, *nulls, *sizes)
    crc = zlib.crc32(head, start)
    for buffer in buffers:
        if buffer is not None:
            crc = zlib.crc32(buffer, crc)
    return crc


def _first_line(exc: BaseException) -> str:
    return (str(exc) or type(exc).__name__).splitlines()[0]

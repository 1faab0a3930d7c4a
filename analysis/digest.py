"""What rows hold, bit for bit, however they are cut into batches: to prove that a copy is one."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Digest:
    """Hashes rows as they go by; two digests are equal where the columns are, NaN payloads and -0.0 included."""

    def __init__(self, names: list[str]) -> None:
        self.rows = 0
        self._names = names
        self._hashes = [(blake2b(), blake2b(), blake2b()) for _ in names]

    def add(self, batch: pa.RecordBatch) -> None:
        """Take note of some rows."""
        self.rows += batch.num_rows
        for name, (valid, lengths, values) in zip(self._names, self._hashes, strict=True):
            column = batch.column(name)
            valid.update(_bytes(column.is_valid()))
            for hashed, part in zip((values, lengths), _parts(column), strict=False):
                hashed.update(part)

    def of(self) -> dict[str, tuple[int, str]]:
        """Rows and hash of each column."""
        return {
            name: (self.rows, "".join(part.hexdigest() for part in parts))
            for name, parts in zip(self._names, self._hashes, strict=True)
        }


def _parts(column: pa.Array) -> tuple[bytes, ...]:
    kind = column.type
    if pa.types.is_floating(kind):
        # As integers: NaN != NaN and -0.0 == 0.0, but not here.
        column, kind = column.view(pa.from_numpy_dtype(f"i{kind.bit_width // 8}")), None
    if kind is None or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return (_bytes(pc.fill_null(column, False if kind is not None and pa.types.is_boolean(kind) else 0)),)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        filled = pc.fill_null(column, "" if pa.types.is_string(kind) else b"")
        offsets = np.frombuffer(filled.buffers()[1], np.int32, len(filled) + 1, 4 * filled.offset)
        data = filled.buffers()[2]
        text = b"" if data is None else data[offsets[0] : offsets[-1]].to_pybytes()
        return text, np.diff(offsets).tobytes()
    return (repr(column.to_pylist()).encode(),)


def _bytes(column: pa.Array) -> bytes:
    return np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes()

"""A meter's exported CSV, read in blocks of numbers: any delimiter, a header or none, every fault told with its line."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from melt_stream.collectors._files import open_regular
from melt_stream.errors import ConfigError, DataError

FILE_LIMIT = 1 << 40
BLOCK = 1 << 20
LINE_LIMIT = 1 << 16
"""Bytes of one line."""
COLUMNS_LIMIT = 1000
Array = np.ndarray[Any, Any]
_WRAPPED = re.compile(rb"np\.float(?:32|64)\(([^()\n]*)\)")
"""How NumPy 2 writes its numbers with ``repr``."""


class Block(NamedTuple):
    """Lines as numbers; an empty cell is NaN."""

    line: int
    """Of the first, from 1; blank lines are not counted among a block's rows."""
    values: Array
    """float64, a row a line, a column each that was asked for."""


@dataclass(frozen=True)
class Csv:
    """A file whose first line has been looked at."""

    path: Path
    names: tuple[str, ...]
    """The header's cells; none where it has no header."""
    delimiter: str
    columns: int
    """How many cells the first line has, an empty last one left out."""

    def blocks(self, wanted: Sequence[int]) -> Iterator[Block]:
        """Yield the numbers of these columns, 1 MiB of text at a time.

        A last line without its end is left out: it may have been cut within a number. Raises ``DataError`` with line and column.
        """
        with open_regular(self.path, FILE_LIMIT) as file:
            line, rest = 1, b""
            if self.names:
                file.readline(LINE_LIMIT)
                line = 2
            while data := file.read(BLOCK):
                whole, newline, rest = (rest + data).rpartition(b"\n")
                if len(rest) > LINE_LIMIT:
                    raise DataError(
                        f"{self.path}, line {line + whole.count(10) + bool(newline)}: expected at most {LINE_LIMIT} bytes, got more"
                    )
                if newline:
                    yield from self._block(whole, line, wanted)
                    line += whole.count(b"\n") + 1

    def _block(self, text: bytes, line: int, wanted: Sequence[int]) -> Iterator[Block]:
        text = self._plain(text)
        if not text.strip():
            return
        try:
            values = _numbers(text.decode("ascii"), self.delimiter, wanted)
        except (ValueError, UnicodeDecodeError):
            raise self._fault(text, line, wanted) from None
        yield Block(line, values)

    def _plain(self, text: bytes) -> bytes:
        """Return text that has a number in every cell: wrapped ones unwrapped, decimal commas made points, empty ones named."""
        if b"np.float" in text:
            text = _WRAPPED.sub(rb"\1", text)
        if self.delimiter == ";":
            text = text.replace(b",", b".")
        text = text.replace(b"\r", b"")
        sign = self.delimiter.encode()
        for _ in range(2):  # the second time for every other one of a row of empty cells
            text = text.replace(sign * 2, sign + b"nan" + sign)
        text = text.replace(sign + b"\n", sign + b"nan\n").replace(b"\n" + sign, b"\nnan" + sign)
        head, tail = b"nan" * text.startswith(sign), b"nan" * text.endswith(sign)
        return head + text + tail

    def _fault(self, text: bytes, line: int, wanted: Sequence[int]) -> DataError:
        """Find what cannot be read."""
        for number, row in enumerate(text.split(b"\n"), line):
            cells = row.decode("utf-8", "replace").split(self.delimiter)
            for column in wanted if row.strip() else ():
                cell = cells[column].strip() if column < len(cells) else ""
                try:
                    _numbers(cell or "-", self.delimiter, [0])
                except ValueError:
                    got = repr(cell[:80]) if column < len(cells) else f"{len(cells)} columns"
                    return DataError(
                        f"{self.path}, line {number}, column {column + 1}: expected a number, got {got}"
                    )
        return DataError(f"{self.path}, line {line}: expected lines of numbers, got something else below it")


def read_head(path: Path) -> Csv:
    """Look at a file's first line. Raises ``DataError`` where it is no table, ``ConfigError`` where a folder has not one CSV."""
    path = the_csv(path)
    with open_regular(path, FILE_LIMIT) as file:
        raw = file.readline(LINE_LIMIT)
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if not text or "\0" in text or (len(raw) == LINE_LIMIT and not raw.endswith(b"\n")):
        raise DataError(f"{path}, line 1: expected a line of CSV, got {text[:80]!r}")
    delimiter = max(";\t,", key=text.count)
    cells = [cell.strip().strip('"').strip() for cell in text.split(delimiter)]
    while cells and not cells[-1]:
        cells.pop()
    if not 2 <= len(cells) <= COLUMNS_LIMIT:
        raise DataError(f"{path}, line 1: expected 2 to {COLUMNS_LIMIT} columns, got {len(cells)}")
    headed = any(
        re.search(r"[A-Za-z]", _unwrapped(cell)) and _unwrapped(cell).lower() != "nan" for cell in cells
    )
    exponents = all(re.fullmatch(r"[-+.\deE]*", _unwrapped(cell)) for cell in cells)
    return Csv(path, tuple(cells) if headed and not exponents else (), delimiter, len(cells))


def the_csv(path: Path) -> Path:
    """Return a file, or the one CSV of a folder. Raises ``ConfigError`` where there is not one."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.csv"))[:6]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found) or "none"
    raise ConfigError(f"{path}: expected one CSV file, got {names}; name one of them")


def _unwrapped(cell: str) -> str:
    return _WRAPPED.sub(rb"\1", cell.encode()).decode("utf-8", "replace")


def _numbers(text: str, delimiter: str, wanted: Sequence[int]) -> Array:
    return np.loadtxt(
        io.StringIO(text), np.float64, comments=None, delimiter=delimiter, usecols=wanted, ndmin=2
    )

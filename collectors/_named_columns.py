"""A CSV of a tool's own, with words in it: rows by the names of its header, every fault told with its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from melt_stream.collectors._files import numbered_lines
from melt_stream.errors import DataError

COLUMNS_LIMIT, ROWS_LIMIT = 2000, 2_000_000


def named_rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield (line, its cells by name), the header first: there each cell is its own name.

    A last line that has fewer cells was cut, and is left out. Raises ``DataError`` for any other, and what is no CSV.
    """
    names: list[str] | None = None
    short: tuple[int, int] | None = None
    for number, text in numbered_lines(path):
        cells = _cells(path, number, text)
        if names is None:
            names = cells
        if short is not None:
            raise DataError(f"{path}, line {short[0]}: expected {len(names)} columns, got {short[1]}")
        if number > ROWS_LIMIT or len(cells) > COLUMNS_LIMIT:
            raise DataError(
                f"{path}, line {number}: expected at most {ROWS_LIMIT} lines of {COLUMNS_LIMIT} columns, got more"
            )
        if len(cells) == len(names):
            yield number, dict(zip(names, cells, strict=True))
        elif cells:
            short = number, len(cells)


def _cells(path: Path, number: int, text: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True), [])]
    except csv.Error as exc:
        raise DataError(f"{path}, line {number}: expected a row of CSV, got {text[:80]!r}: {exc}") from exc

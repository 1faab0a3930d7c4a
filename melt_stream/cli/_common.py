"""What several commands share: where the archive is, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

RunName = Annotated[str, Parameter(help="A run's id, a unique prefix of it, its path, or `last`.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of every command."""

    archive: Annotated[
        Path | None, Parameter(help="Folder of the runs (default: $MELT_ARCHIVE, else ./melt-archive).")
    ] = None
    json: Annotated[bool, Parameter(help="Print JSON, and nothing else, on stdout.", negative="")] = False

    @property
    def folder(self) -> Path:
        """The archive to use."""
        return self.archive or Path(os.environ.get("MELT_ARCHIVE") or "melt-archive")


NO_OPTIONS = Options()


def print_json(value: Any) -> None:
    """Print JSON on stdout; a number that is not finite becomes null."""
    print(json.dumps(_finite(value), default=str, ensure_ascii=False, allow_nan=False))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = ""
) -> None:
    """Print a table on stdout, as wide as the terminal, or as its content where there is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, caption=caption or None, title_justify="left", caption_justify="left")
    rows = [[_cell(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if _numeric(rows, index) else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(200, console.width)
    console.print(table)


def say(text: str) -> None:
    """Tell a person something, on stderr, so that stdout stays data."""
    print(text, file=sys.stderr)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _numeric(rows: Sequence[Sequence[str]], index: int) -> bool:
    cells = [row[index] for row in rows if row[index] != "-"]
    return bool(cells) and all(cell.lstrip("+-")[:1].isdigit() for cell in cells)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0.0:
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

"""Files of prompts: JSON, JSONL, CSV and plain text -> entries, checked."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from melt_stream.errors import ConfigError
from melt_stream.plugins import nearest

Text = Annotated[str, Field(min_length=1)]


def _called(told: object) -> object:
    """A conversation that is only a number is called as one of a list is."""
    number = isinstance(told, int) and not isinstance(told, bool)
    return f"conv-{told}" if number or (isinstance(told, str) and told.isdecimal()) else told


class Entry(BaseModel):
    """A prompt, and what a file may say of it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    prompt: Text
    name: Text | None = None
    system: str | None = None
    max_tokens: PositiveInt | None = None
    conversation: Annotated[Text, BeforeValidator(_called)] | None = None


def entries(path: Path) -> list[Entry]:
    """Return the entries of a file, at least one. Raises ``ConfigError`` that names the file and the entry.

    ``.json``: a list; ``.jsonl``: a value a line; each value as :func:`entry` says. ``.csv``: a line of columns, of
    which ``prompt`` is needed. Anything else: a prompt a line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as exc:
        raise ConfigError(
            "prompts: expected a list of prompts, the path of a file of them, humaneval: or synthetic:..., "
            f"got {str(path)!r:.200}: {exc}"
        ) from exc
    return parse(text, path.suffix, path.stem, str(path))


def parse(text: str, suffix: str, stem: str, where: str) -> list[Entry]:
    """Return the entries of a file's text; ``stem`` names those that have no name, ``where`` is for messages."""
    try:
        values = _values(text, suffix)
    except (ValueError, RecursionError, csv.Error) as exc:
        kind = "CSV" if suffix == ".csv" else "JSON"
        raise ConfigError(f"prompts: {where}: expected {kind}, got: {exc}") from exc
    if not isinstance(values, list) or not values:
        raise ConfigError(
            f"prompts: {where}: expected at least one prompt, got none (a list of them is wanted)"
        )
    return [
        one
        for n, value in enumerate(values, 1)
        for one in entry(value, n, f"{stem}-{n}", f"prompts: {where}")
    ]


def entry(value: Any, number: int, name: str, where: str) -> Iterator[Entry]:
    """Yield what entry ``number`` of a list is: a prompt, an object with a prompt, or a list of prompts.

    The list is a conversation, as in MELT's files, called ``conv-<number>``. ``name`` is for a prompt that has none
    and is in no conversation. Raises ``ConfigError``.
    """
    if isinstance(value, list):
        if not value:
            raise ConfigError(
                f"{where}, entry {number}: expected a conversation of prompts, got an empty list"
            )
        for turn in value:
            yield _checked({"prompt": turn, "conversation": f"conv-{number}"}, number, where)
        return
    told = value if isinstance(value, dict) else {"prompt": value}
    found = _checked(told, number, where)
    bare = found.name is None and found.conversation is None
    yield found.model_copy(update={"name": name}) if bare else found


def _checked(told: dict[Any, Any], number: int, where: str) -> Entry:
    try:
        return Entry.model_validate(told)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        hint = f"; {nearest(key, Entry.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(
            f"{where}, entry {number}: expected a string or an object with a prompt, got {told!r:.80}: "
            f"{key}: {first['msg']}{hint}"
        ) from exc


def _values(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".csv":
        return _rows(text)
    lines = [line for line in text.split("\n") if line.strip()]  # splitlines would cut JSON at U+2028, too
    return [json.loads(line) for line in lines] if suffix == ".jsonl" else lines


def _rows(text: str) -> list[dict[str, Any]]:
    """Return a CSV's rows without their empty cells. Raises ``ValueError`` for cells that have no column."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    columns = reader.fieldnames or []
    if len(set(columns)) < len(columns):
        raise ValueError(f"a column twice: {', '.join(columns)[:200]}")
    found = []
    for row in reader:
        if None in row:
            raise ValueError(f"line {reader.line_num}: more cells than the {len(columns)} columns")
        cells = {key.strip(): cell for key, cell in row.items() if cell}
        if (limit := cells.get("max_tokens")) is not None:
            cells["max_tokens"] = int(limit)
        found.append(cells)
    return found

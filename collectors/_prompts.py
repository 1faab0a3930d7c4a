"""Prompts: where they come from, and what they are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from melt_stream.errors import ConfigError

DEFAULT_PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "Write a short note that thanks a colleague for mending the coffee machine.",
    "List three ways to save battery on a phone, and say why each of them works.",
)


class Question(NamedTuple):
    """One prompt and what it is called in the tables."""

    name: str
    text: str
    warmup: bool = False


def from_file(path: Path) -> list[Question]:
    """Return the prompts of a file, as ``Asking.prompts`` says. Raises ``ConfigError`` that names the entry."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"prompts: expected a list of prompts or the path of a file of them, got {path}: {exc}"
        ) from exc
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        if path.suffix == ".json":
            entries = json.loads(text)
        else:
            entries = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else lines
    except ValueError as exc:
        raise ConfigError(f"prompts: {path}: expected JSON, got: {exc}") from exc
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"prompts: {path}: expected at least one prompt, got none")
    return [_entry(path, n, entry) for n, entry in enumerate(entries, 1)]


def _entry(path: Path, number: int, entry: Any) -> Question:
    fields = entry if isinstance(entry, dict) else {"prompt": entry}
    text, name = fields.get("prompt"), fields.get("name", f"{path.stem}-{number}")
    if isinstance(text, str) and isinstance(name, str):
        return Question(name, text)
    raise ConfigError(
        f"prompts: {path}, entry {number}: expected a string or an object with a prompt, got {entry!r:.80}"
    )

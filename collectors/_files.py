"""Reading other tools' files safely: every size is bounded, and a fault is told with its position.

What is imported may be cut, damaged or made to harm. Whatever these functions meet, they return, or raise
``DataError`` with the file and the line, byte or field; memory stays within the bounds given.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, BinaryIO

from melt_stream.errors import ConfigError, DataError

TEXT_LIMIT = 256 << 20
"""Bytes of a text that is read line by line (submissions to MLPerf may hold files of 50 MB)."""
LINE_LIMIT = 16 << 20
"""Bytes of one line: loadgen writes a list of 200,000 samples on one."""
JSON_LIMIT = 16 << 20
FOLDER_LIMIT = 10_000
"""Entries looked at while searching a folder."""
_NS = Decimal(10) ** 9
_MAX_SECONDS = Decimal(10) ** 9 * 8


def open_regular(path: Path, limit: int) -> BinaryIO:
    """Open a regular file for reading bytes; ``DataError`` where it is something else or larger than ``limit``."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # a pipe must not be waited for
    except (OSError, ValueError) as exc:
        raise DataError(f"{path}: expected a readable file, got {exc}") from exc
    info = os.fstat(file.fileno())
    if stat.S_ISREG(info.st_mode) and info.st_size <= limit:
        return file
    file.close()
    what = f"{info.st_size} bytes" if stat.S_ISREG(info.st_mode) else "something that is not a regular file"
    raise DataError(f"{path}: expected a file of at most {limit} bytes, got {what}")


def numbered_lines(path: Path, limit: int = TEXT_LIMIT) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end) of a text; LF or CRLF; what is not UTF-8 is replaced."""
    number = 0
    with open_regular(path, limit) as file:
        while raw := file.readline(LINE_LIMIT + 1):
            number += 1
            if len(raw) > LINE_LIMIT:
                raise DataError(f"{path}, line {number}: expected at most {LINE_LIMIT} bytes, got more")
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            yield number, text.removeprefix("\ufeff") if number == 1 else text


def optional_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield :func:`numbered_lines` of a file; none where it is absent."""
    return numbered_lines(path) if path.exists() else iter(())


def read_json(path: Path) -> Any:
    """Return the file's JSON; numbers with a fraction are ``Decimal``, so that no digit of a time is lost."""
    with open_regular(path, JSON_LIMIT) as file:
        text = file.read(JSON_LIMIT).decode("utf-8-sig", "replace")
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        raise DataError(
            f"{path}, line {exc.lineno}, column {exc.colno}: expected JSON, got {exc.msg}"
        ) from exc
    except (ValueError, RecursionError, InvalidOperation) as exc:
        raise DataError(f"{path}: expected JSON, got {str(exc)[:200]}") from exc


def seconds_to_ns(value: object, where: str) -> int:
    """Return a number of seconds (int, Decimal, or text of one) as whole nanoseconds that fit in int64; ``DataError`` naming ``where``."""
    try:
        seconds = (
            Decimal(value) if isinstance(value, int | str | Decimal) and not isinstance(value, bool) else None
        )
    except InvalidOperation:
        seconds = None
    if seconds is None or not seconds.is_finite() or not 0 <= seconds <= _MAX_SECONDS:
        raise DataError(
            f"{where}: expected a number of seconds from 0 to {_MAX_SECONDS:g}, got {str(value)[:80]!r}"
        )
    return int((seconds * _NS).to_integral_value())


def the_file(path: Path) -> Path:
    """Return the file at ``path``, or the only one in that folder. Raises ``ConfigError``."""
    if not path.is_dir():
        return path
    found = sorted(one for one in path.iterdir() if one.is_file())[:6]
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.name for one in found) or "none"
    raise ConfigError(f"{path}: expected one log, got {names}; name it")


def folders_below(root: Path, depth: int) -> Iterator[Path]:
    """Yield ``root`` and the folders at most ``depth`` levels below it, sorted, links not followed.

    ``ConfigError`` where ``root`` is no folder, or too much lies below it to be one recording.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: expected a folder, got {'a file' if root.exists() else 'nothing there'}")
    seen = 0
    level = [root]
    for _ in range(depth + 1):
        below: list[Path] = []
        for folder in level:
            yield folder
            for entry in _entries(folder):
                seen += 1
                if seen > FOLDER_LIMIT:
                    raise ConfigError(
                        f"{root}: expected one recording, got more than {FOLDER_LIMIT} files; name its own folder"
                    )
                if entry.is_dir() and not entry.is_symlink():
                    below.append(entry)
        level = below


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _no_constant(name: str) -> Any:
    raise ValueError(f"the constant {name}, which is not JSON")

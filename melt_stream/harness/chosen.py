"""Runs that a person chooses: by a name, or by a condition in SQL."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb

from melt_stream.analysis.archive import connect
from melt_stream.errors import ConfigError
from melt_stream.harness.session import packed_run
from melt_stream.run import Run

_NAMED = re.compile(r"([\w.-]+)=(.*)", re.DOTALL)


def chosen(archive: Path, text: str) -> tuple[str, list[Run]]:
    """Return a name and the packed runs that ``text`` means: a run, or ``NAME=CONDITION`` over the view ``runs``.

    Runs come in the order of their start. Raises ``ConfigError`` where there is no such run, or the condition is no SQL.
    """
    found = _NAMED.fullmatch(text)
    if found is None:
        run = packed_run(archive, text)
        return run.id, [run]
    name, condition = found.groups()
    ids = _matching(archive, condition)
    if not ids:
        raise ConfigError(f"{name}: expected runs of which {condition!r} is true, got none in {archive}")
    return name, [packed_run(archive, run) for run in ids]


def _matching(archive: Path, condition: str) -> list[str]:
    query = f"SELECT run FROM runs WHERE ({condition}) ORDER BY run"
    try:
        rows = connect(archive, query).sql(query).fetchall()
    except duckdb.Error as exc:
        raise ConfigError(f"expected a condition over the view runs, got {condition!r}: {exc}") from exc
    return [str(run) for (run,) in rows]

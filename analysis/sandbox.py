"""SQL that comes from outside: looked at before it runs, and run where it can touch nothing.

A query must be one SELECT. DuckDB's own parser says which tables and functions it names; table functions must be on
a short list, since some write files. The connection then has external access off but for the files of the views the
query names, and its configuration is locked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from melt_stream.errors import ConfigError

_TABLE_FUNCTIONS = frozenset(
    {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree"}
)
_SCALARS_REFUSED = re.compile(
    r"write_log|nextval|currval|query|query_table|.*secret.*|json_execute_serialized_sql"
)


@dataclass(frozen=True)
class Named:
    """What a query names."""

    tables: frozenset[str]
    functions: frozenset[str]


def inspect(query: str, parser: duckdb.DuckDBPyConnection) -> Named:
    """Return what a query names; raises ``ConfigError`` where it is anything but one SELECT over views.

    The query is parsed by ``parser``, not run, nor are its names looked up.
    """
    try:
        kinds = [statement.type for statement in parser.extract_statements(query)]
    except duckdb.Error as exc:
        raise ConfigError(f"SQL: {exc}") from exc
    if kinds != [duckdb.StatementType.SELECT]:
        got = ", ".join(kind.name for kind in kinds) or "nothing"
        raise ConfigError(f"SQL: expected one SELECT, got {got}; the archive is only read")
    tree = json.loads(parser.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0][0])
    if tree.get("error"):
        raise ConfigError(f"SQL: expected one SELECT, got {tree.get('error_message', query)}")
    nodes = list(_nodes(tree))
    called = {node["function_name"].lower() for node in nodes if node.get("class") == "FUNCTION"}
    of_tables = {
        node["function"]["function_name"].lower() for node in nodes if node.get("type") == "TABLE_FUNCTION"
    }
    if refused := sorted((of_tables - _TABLE_FUNCTIONS) | set(filter(_SCALARS_REFUSED.fullmatch, called))):
        raise ConfigError(
            f"SQL: expected views only, got the function {refused[0]}(), which is not allowed here"
        )
    return Named(frozenset(_tables(nodes)), frozenset(called))


def sealed(connection: duckdb.DuckDBPyConnection, files: Iterable[str]) -> None:
    """Let a connection read ``files`` and nothing else, for good."""
    # Through a variable: as text in the SET, 1,000 paths took 18 ms to parse instead of 8.
    connection.execute("SET VARIABLE allowed = ?::VARCHAR[]", [list(files)])
    connection.execute("SET allowed_paths = getvariable('allowed')")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def opened() -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory, bounded in memory and threads, that finds no Python variables."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    settings: dict[str, Any] = {
        "memory_limit": f"{min(memory // 4, 4 << 30) // (1 << 20)}MiB",
        "threads": min(os.cpu_count() or 1, 8),
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": "",
        "enable_external_file_cache": False,  # no file is read twice: looking for it costs a tenth of 1,000 footers
    }
    return duckdb.connect(":memory:", config=settings)


def name(text: str) -> str:
    """A name as SQL."""
    return '"' + text.replace('"', '""') + '"'


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _tables(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if node.get("type") == "BASE_TABLE":
            yield node["table_name"].lower()
        elif node.get("type") == "SHOW_REF" and node.get("table_name"):
            yield node["table_name"].strip('"').lower()

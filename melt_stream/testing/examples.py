"""Making plug-ins from what their ``example()`` says in plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melt_stream.plugins import configure
from melt_stream.testing.trees import FakeTree


def made_from_example(cls: Any, folder: Path, example: dict[str, Any] | None = None) -> Any:
    """Return the plug-in as its example configures it; ``folder`` is for its files.

    ``{"kind": "files", "tree": {path: text}}`` puts them below ``folder``, which becomes its ``root``;
    ``{"kind": "plain"}`` needs nothing; ``config`` are its fields. Raises ``ValueError`` for another kind.
    """
    example = example or cls.example()
    config = dict(example.get("config", {}))
    match example["kind"]:
        case "files":
            config["root"] = str(FakeTree(folder, example["tree"]).root)
        case "plain":
            pass
        case kind:
            raise ValueError(f"{cls.__name__}.example(): expected kind 'files' or 'plain', got {kind!r}")
    return configure(cls, config, f"{cls.__name__}.example()")

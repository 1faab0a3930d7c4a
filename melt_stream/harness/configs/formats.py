"""Every format by name: a file's text into a configuration, a configuration into text."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from melt_stream.collectors._files import open_regular
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.configs.llama_cpp import read_args, split, to_main, to_server, to_workload
from melt_stream.harness.configs.llmfarm import read_llmfarm, to_llmfarm
from melt_stream.harness.configs.melt import read_llmfarm_eval, read_melt, to_llmfarm_eval, to_melt
from melt_stream.harness.configs.mlc import read_mlc, to_mlc
from melt_stream.harness.configs.model_config import ModelConfig, Translated

LIMIT = 1 << 20
"""Bytes of a file."""
WRITERS: dict[str, Callable[[ModelConfig], Translated[Any]]] = {
    "melt": to_melt, "llama.cpp": to_main, "llama-server": to_server, "workload": to_workload, "llmfarm": to_llmfarm,
    "llmfarm-eval": to_llmfarm_eval, "mlc": to_mlc,
}  # fmt: skip
TREES: dict[str, Callable[[Mapping[str, Any], str], Translated[ModelConfig]]] = {
    "melt": read_melt, "llmfarm": read_llmfarm, "llmfarm-eval": read_llmfarm_eval, "mlc": read_mlc,
}  # fmt: skip
READERS = (*TREES, "llama.cpp")
_LLMFARM = ("prompt_format", "template_name", "model_inference", "repeat_penalty", "temp", "context")


def read(path: Path, kind: str | None = None) -> Translated[ModelConfig]:
    """Read a file of one of ``READERS``, found out by its name and fields where ``kind`` is None.

    Raises ``ConfigError`` with the file and the field where it is none, or where YAML cannot be read here.
    """
    if kind is not None and kind not in READERS:
        raise ConfigError(f"expected one of {', '.join(READERS)}, got {kind!r}")
    try:
        with open_regular(path, LIMIT) as file:
            text = file.read(LIMIT).decode("utf-8-sig", "replace")
    except DataError as exc:
        raise ConfigError(str(exc)) from None
    yaml = path.suffix in (".yaml", ".yml")
    if kind == "llama.cpp" or (kind is None and not yaml and path.suffix != ".json"):
        return read_args(split(text, str(path)), str(path))
    tree = _yaml(text, path) if yaml or kind == "melt" else _json(text, path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a table of fields, got {type(tree).__name__}")
    kind = kind or ("melt" if yaml else _guess(tree))
    return TREES[kind](tree, str(path))


def write(config: ModelConfig, kind: str) -> Translated[Any]:
    """Translate into one of ``WRITERS``. Raises ``ConfigError`` for another."""
    if kind not in WRITERS:
        raise ConfigError(f"expected one of {', '.join(WRITERS)}, got {kind!r}")
    return WRITERS[kind](config)


def as_text(value: Any, kind: str) -> str:
    """Return what :func:`write` gave as the text of a file. Raises ``ConfigError`` where YAML cannot be written here."""
    if kind == "melt":
        return str(_pyyaml().safe_dump(value, sort_keys=False))
    if isinstance(value, list):
        return f"{shlex.join(value)}\n"
    if kind == "workload":  # JSON's texts, numbers and lists of texts are TOML's too, but for one character
        lines = [f"{name} = {json.dumps(one, ensure_ascii=False)}\n" for name, one in value.items()]
        return "".join(["[workloads.llama]\n", *lines]).replace("\x7f", "\\u007f")
    return f"{json.dumps(value, indent=2, ensure_ascii=False)}\n"


def _guess(tree: Mapping[str, Any]) -> str:
    if "sampling" in tree or "generation" in tree:
        return "llmfarm-eval"
    return "llmfarm" if any(name in tree for name in _LLMFARM) else "mlc"


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: expected JSON, got {str(exc)[:200]}") from None


def _yaml(text: str, path: Path) -> Any:
    yaml = _pyyaml()
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: expected YAML, got {' '.join(str(exc).split())[:300]}") from None


def _pyyaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise ConfigError(
            "MELT's YAML: expected PyYAML, which is not installed; pip install 'melt-stream[zoo]', or PyYAML itself"
        ) from None

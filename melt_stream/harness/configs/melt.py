"""MELT's model YAML, and ``model_config.json`` of LLMFarmEval: the same tree, made by dumping the YAML as JSON.

LLMFarmEval takes texts as they stand, so that MELT's own dumps give the model the quotes and escapes that were meant for llama.cpp's shell; here its
JSON has plain texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.configs.model_config import FIELDS, Lost, ModelConfig, Translated, checked
from melt_stream.harness.configs.texts import shell_quoted, shell_unquoted

SECTIONS = {
    "sampling": ("temperature", "repetition_penalty", "top_p", "top_k", "repeat_last_n", "n_batch"),
    "generation": ("mean_gen_len", "max_gen_len", "max_window_size", "vocab_size"),
    "prompt": ("conv_template", "text", "in_prefix", "in_suffix", "reverse", "chatml"),
}
TEXTS = frozenset({"text", "in_prefix", "in_suffix", "reverse"})
NOT_MELT = "MELT's format has no such field"


def read_melt(tree: Mapping[str, Any], where: str) -> Translated[ModelConfig]:
    """Read the tree of a YAML file. Raises ``ConfigError`` with the field."""
    return _read(tree, where, shell_unquoted)


def read_llmfarm_eval(tree: Mapping[str, Any], where: str) -> Translated[ModelConfig]:
    """Read the tree of a ``model_config.json``. Raises ``ConfigError`` with the field."""
    return _read(tree, where, str)


def to_melt(config: ModelConfig) -> Translated[dict[str, Any]]:
    """Return the tree for a YAML file: nothing is lost."""
    return Translated(_tree(config, shell_quoted))


def to_llmfarm_eval(config: ModelConfig) -> Translated[dict[str, Any]]:
    """Return the tree for a ``model_config.json``; ``chatml`` stands there, but the app does not look at it."""
    return Translated(_tree(config, str))


def _read(tree: Mapping[str, Any], where: str, text: Callable[[str], str]) -> Translated[ModelConfig]:
    values: dict[str, Any] = {}
    lost: list[Lost] = []
    for name, value in tree.items():
        if name in SECTIONS:
            _section(name, value, where, values, lost)
        elif name in FIELDS[:2]:
            values[name] = value
        else:
            lost.append(Lost(str(name)[:100], NOT_MELT))
    for name in TEXTS & values.keys():
        values[name] = text(values[name]) if isinstance(values[name], str) else values[name]
    return Translated(checked(values, where), lost)


def _section(name: str, value: Any, where: str, values: dict[str, Any], lost: list[Lost]) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {name}: expected a table of fields, got {type(value).__name__}")
    for key, one in value.items():
        if key in SECTIONS[name]:
            values[key] = one
        else:
            lost.append(Lost(f"{name}.{key}"[:100], NOT_MELT))


def _tree(config: ModelConfig, text: Callable[[str], str]) -> dict[str, Any]:
    given = {name: text(value) if name in TEXTS else value for name, value in config.given()}
    if "chatml" in given:
        given["chatml"] = "" if given["chatml"] else False  # MELT's way to say yes
    sections = {name: {key: given[key] for key in keys if key in given} for name, keys in SECTIONS.items()}
    return {key: given[key] for key in FIELDS[:2] if key in given} | {n: s for n, s in sections.items() if s}

"""LLMFarm's chat settings: a flat JSON object with ``prompt_format``, in which ``{{prompt}}`` stands for the prompt.

A system text stands at its beginning as ``[system](text)``. Field names as in the templates that the app ships (guinmoon/LLMFarm).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.configs.melt import NOT_MELT, TEXTS
from melt_stream.harness.configs.model_config import Lost, ModelConfig, Translated, checked, unsaid

NAMES = {
    "model": "template_name", "max_window_size": "context", "n_batch": "n_batch", "temperature": "temp", "top_k": "top_k",
    "top_p": "top_p", "repeat_last_n": "repeat_last_n", "repetition_penalty": "repeat_penalty", "reverse": "reverse_prompt",
}  # fmt: skip
_FIELD = {theirs: ours for ours, theirs in NAMES.items()}
_SAID = frozenset({*NAMES, "text", "in_prefix", "in_suffix"})
_SYSTEM = re.compile(r"\[system\]\(([^()]*)\)")
_PROMPT = re.compile(r"\{\{prompt\}\}|\{prompt\}")
_WHY = "LLMFarm's chat settings have no such field"


def to_llmfarm(config: ModelConfig) -> Translated[dict[str, Any]]:
    """Return the settings; what they cannot say is left out and told."""
    lost = unsaid(config, _SAID, _WHY)
    given = {name: value for name, value in config.given() if name in _SAID}
    for name in sorted(TEXTS & given.keys() - {"reverse"}):
        if why := _unwritable(name, given[name]):
            lost.append(Lost(name, why))
            del given[name]
    made: dict[str, Any] = {"model_inference": "llama"}
    made |= {theirs: given[ours] for ours, theirs in NAMES.items() if ours in given}
    if TEXTS - {"reverse"} & given.keys():
        system = f"[system]({given['text']})" if "text" in given else ""
        made["prompt_format"] = (
            f"{system}{given.get('in_prefix', '')}{{{{prompt}}}}{given.get('in_suffix', '')}"
        )
    return Translated(made, lost)


def read_llmfarm(tree: Mapping[str, Any], where: str) -> Translated[ModelConfig]:
    """Read settings. Raises ``ConfigError`` with the field."""
    values: dict[str, Any] = {}
    lost: list[Lost] = []
    for name, value in tree.items():
        if name in _FIELD:
            values[_FIELD[name]] = value
        elif name == "prompt_format":
            values |= _format(value, f"{where}: {name}")
        elif name != "model_inference" or value != "llama":
            lost.append(Lost(str(name)[:100], NOT_MELT))
    return Translated(checked(values, where), lost)


def _format(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: expected a text, got {type(value).__name__}")
    found = {}
    if match := _SYSTEM.match(value):
        found["text"], value = match[1], value[match.end() :]
    parts = _PROMPT.split(value)
    if len(parts) != 2:
        raise ConfigError(f"{where}: expected one {{{{prompt}}}}, got {len(parts) - 1} in {value[:100]!r}")
    return found | {"in_prefix": parts[0], "in_suffix": parts[1]}


def _unwritable(name: str, text: str) -> str | None:
    """Say why a text would be read otherwise than it is meant."""
    if _PROMPT.search(text):
        return "it would be taken for the place of the prompt"
    if name == "text" and ("(" in text or ")" in text):
        return "[system](...) ends at the first parenthesis"
    return "it would be taken for the system's text" if name == "in_prefix" and _SYSTEM.match(text) else None

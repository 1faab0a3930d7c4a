"""``mlc-chat-config.json``: sampling and lengths as MELT has them, and a conversation template by name or as an object.

As MELT translates it (mlc_utils.py), with ``context_window_size`` for what older files call ``max_window_size``; objects as MLC's own conversions write
them: a turn is the user's role, ``role_content_sep``, the prompt, the first of ``seps``, the assistant's role, ``role_empty_sep``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.configs.melt import NOT_MELT, TEXTS
from melt_stream.harness.configs.model_config import Lost, ModelConfig, Translated, checked, unsaid

PLAIN = ("temperature", "repetition_penalty", "top_p", "mean_gen_len", "max_gen_len", "vocab_size")
WINDOW = "context_window_size"
WINDOWS = (WINDOW, "max_window_size", "sliding_window_size", "sliding_window")
"""Names of the context's length through MLC's versions."""
_NO_WINDOW = -1
"""Such a length says that another one counts."""
_SAID = frozenset({*PLAIN, "max_window_size", "conv_template", *TEXTS})
_OWN = "melt"
"""Name of a template that was made of texts."""
_KNOWN = frozenset({
    "name", "system_template", "system_message", "roles", "role_templates", "messages", "seps", "role_content_sep", "role_empty_sep",
    "stop_str", "stop_token_ids", "function_string", "use_function_calling",
})  # fmt: skip


def to_mlc(config: ModelConfig) -> Translated[dict[str, Any]]:
    """Return the fields to put into a model's ``mlc-chat-config.json``; a template by name wins over texts, as with MELT."""
    lost = unsaid(config, _SAID, "mlc-chat-config.json has no such field")
    made = {name: value for name, value in config.given() if name in PLAIN}
    if config.max_window_size == _NO_WINDOW:
        lost.append(Lost("max_window_size", f"MLC's {_NO_WINDOW} says that another window counts"))
    elif config.max_window_size is not None:
        made[WINDOW] = config.max_window_size
    if config.conv_template is not None:
        made["conv_template"] = config.conv_template
        lost += [
            Lost(n, f"the template {config.conv_template} has its own")
            for n, _ in config.given()
            if n in TEXTS
        ]
    elif any(name in TEXTS for name, _ in config.given()):
        made["conv_template"] = _template(config)
    return Translated(made, lost)


def read_mlc(tree: Mapping[str, Any], where: str) -> Translated[ModelConfig]:
    """Read the tree of a file. Raises ``ConfigError`` with the field."""
    values: dict[str, Any] = {}
    lost: list[Lost] = []
    for name, value in tree.items():
        if name in PLAIN:
            values[name] = value
        elif name in WINDOWS:
            if value not in (_NO_WINDOW, None):
                values.setdefault("max_window_size", value)
        elif name == "conv_template":
            values |= _read_template(value, f"{where}: {name}", lost)
        else:
            lost.append(Lost(str(name)[:100], NOT_MELT))
    return Translated(checked(values, where), lost)


def _template(config: ModelConfig) -> dict[str, Any]:
    return {
        "name": _OWN, "system_template": "{system_message}", "system_message": config.text or "",
        "roles": {"user": config.in_prefix or "", "assistant": config.in_suffix or ""},
        "role_templates": {"user": "{user_message}", "assistant": "{assistant_message}"},
        "messages": [], "seps": [""], "role_content_sep": "", "role_empty_sep": "",
        "stop_str": [config.reverse] if config.reverse else [], "stop_token_ids": [],
    }  # fmt: skip


def _read_template(value: Any, where: str, lost: list[Lost]) -> dict[str, Any]:
    """A name is one; an object has texts, and a name unless we made it."""
    if not isinstance(value, Mapping):
        return {"conv_template": value}
    roles = value.get("roles")
    roles = roles if isinstance(roles, Mapping) else {}
    seps, stops = (_texts(value.get(name), f"{where}.{name}") for name in ("seps", "stop_str"))
    before, after = (_text(value.get(n), f"{where}.{n}") for n in ("role_content_sep", "role_empty_sep"))
    user, assistant = (_text(roles.get(n), f"{where}.roles.{n}") for n in ("user", "assistant"))
    found: dict[str, Any] = {
        "in_prefix": user + before, "in_suffix": (seps[0] if seps else "") + assistant + after, "reverse": stops[0] if stops else None,
    }  # fmt: skip
    message = _text(value.get("system_message"), f"{where}.system_message")
    template = _text(value.get("system_template"), f"{where}.system_template") or "{system_message}"
    found["text"] = template.replace("{system_message}", message)
    if value.get("name") != _OWN:
        found["conv_template"] = value.get("name")
    lost += [Lost(f"conv_template.{name}"[:100], NOT_MELT) for name in value if name not in _KNOWN]
    lost += (
        [Lost("conv_template.stop_str", f"MELT has one reverse prompt, not {len(stops)}")]
        if len(stops) > 1
        else []
    )
    if value.get("stop_token_ids"):
        lost.append(Lost("conv_template.stop_token_ids", NOT_MELT))
    return found


def _text(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: expected a text, got {type(value).__name__}")
    return value or ""


def _texts(value: Any, where: str) -> list[str]:
    if value is None or isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list) or len(value) > 100:
        raise ConfigError(f"{where}: expected a list of at most 100 texts, got {type(value).__name__}")
    return [_text(one, where) for one in value]

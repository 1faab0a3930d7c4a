"""llama.cpp: the arguments of its main program as MELT translates them, those of ``llama-server``, and the fields of our workload ``llama``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from melt_stream.errors import ConfigError
from melt_stream.harness.configs.melt import NOT_MELT, TEXTS
from melt_stream.harness.configs.model_config import (
    REAL,
    WHOLE,
    Lost,
    ModelConfig,
    Translated,
    checked,
    unsaid,
)
from melt_stream.harness.configs.texts import escaped, unescaped

OPTIONS = {
    "max_gen_len": ("-n", "--predict", "--n-predict"),
    "max_window_size": ("-c", "--ctx-size"),
    "n_batch": ("-b", "--batch-size"),
    "top_k": ("--top-k",),
    "top_p": ("--top-p",),
    "repeat_last_n": ("--repeat-last-n",),
    "repetition_penalty": ("--repeat-penalty",),
    "temperature": ("--temp", "--temperature"),
    "text": ("-p", "--prompt"),
    "in_prefix": ("--in-prefix",),
    "in_suffix": ("--in-suffix",),
    "reverse": ("-r", "--reverse-prompt"),
}
"""Field -> option, the name that is written first."""
_FIELD = {option: name for name, options in OPTIONS.items() for option in options}
_MAIN = frozenset({*OPTIONS, "chatml"})
_SERVER = _MAIN - {"text", "in_prefix", "in_suffix"}
_ASKED = "asked for with each request, not by an argument"
_NO_OPTION = "llama.cpp has no such option (its -m takes a file)"
_MOST = 10_000


def to_main(config: ModelConfig) -> Translated[list[str]]:
    """Return the arguments of llama.cpp's main program, texts escaped, with ``-e``."""
    args = _args(config, _MAIN)
    args += ["--chatml"] if config.chatml else []
    return Translated([*args, "-e"], unsaid(config, _MAIN - _off(config), _NO_OPTION))


def to_server(config: ModelConfig) -> Translated[list[str]]:
    """Return the arguments of ``llama-server``; the prompt's texts belong to each request."""
    args = _args(config, _SERVER)
    args += ["--chat-template", "chatml"] if config.chatml else []
    lost = unsaid(config, _SERVER - _off(config), _NO_OPTION)
    return Translated([*args, "-e"], [one._replace(why=_ASKED) if one.name in TEXTS else one for one in lost])


def to_workload(config: ModelConfig) -> Translated[dict[str, Any]]:
    """Return fields of the workload ``llama``, for a ``binary`` (and its ``model``, a file) that you add; the text becomes its system message."""
    own = {
        "max_tokens": config.max_gen_len, "temperature": config.temperature, "n_ctx": config.max_window_size,
        "n_batch": config.n_batch, "system": config.text,
    }  # fmt: skip
    by_field = frozenset({"max_gen_len", "temperature", "max_window_size", "n_batch", "text"})
    rest = ModelConfig(**{name: value for name, value in config.given() if name not in by_field})
    args = to_server(rest)
    values: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    return Translated(values | ({"args": args.value} if args.value != ["-e"] else {}), args.lost)


def read_args(args: Sequence[str], where: str) -> Translated[ModelConfig]:
    """Read arguments of either program; an option that MELT has no field for is told. Raises ``ConfigError`` with the option.

    Escapes are read but with ``--no-escape``, as llama.cpp does today.
    """
    if len(args) > _MOST:
        raise ConfigError(f"{where}: expected at most {_MOST} arguments, got {len(args)}")
    values: dict[str, Any] = {}
    lost: list[Lost] = []
    rest = list(args)
    while rest:
        option, *rest = rest
        if option in ("-e", "--escape", "--no-escape"):
            continue
        takes = option in _FIELD or (option != "--chatml" and bool(rest) and _is_value(rest[0]))
        value = rest.pop(0) if takes and rest else None
        if option == "--chatml" or (option == "--chat-template" and value == "chatml"):
            values["chatml"] = True
        elif option in _FIELD:
            values[_FIELD[option]] = _value(_FIELD[option], value, f"{where}: {option}")
        else:
            lost.append(Lost(f"{option}{f' {value}' if value is not None else ''}"[:200], NOT_MELT))
    if "--no-escape" not in args:
        values |= {name: unescaped(values[name]) for name in TEXTS & values.keys()}
    return Translated(checked(values, where), lost)


def split(text: str, where: str) -> list[str]:
    """Split a shell's command line, or MELT's ``llama_main_args.txt``. Raises ``ConfigError`` where quotes are open."""
    try:
        return shlex.split(text.replace("\\\n", " "))
    except ValueError as exc:
        raise ConfigError(f"{where}: expected arguments as a shell has them, got some with {exc}") from None


def _args(config: ModelConfig, said: frozenset[str]) -> list[str]:
    args: list[str] = []
    for name, options in OPTIONS.items():
        value = getattr(config, name)
        if value is not None and name in said:
            args += [options[0], escaped(value) if name in TEXTS else repr(value)]
    return args


def _off(config: ModelConfig) -> frozenset[str]:
    """``chatml = false`` cannot be said: it is what no option means."""
    return frozenset({"chatml"}) if config.chatml is False else frozenset()


def _is_value(token: str) -> bool:
    """Tell the value of an option that is not known here from the next option."""
    return not token.startswith("-") or token[1:2].isdigit()


def _value(name: str, value: str | None, where: str) -> Any:
    if name not in WHOLE | REAL:
        return value or ""
    try:
        return float(value or "")
    except ValueError:
        raise ConfigError(f"{where}: expected a number, got {value!r}") from None

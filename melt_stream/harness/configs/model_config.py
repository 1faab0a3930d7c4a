"""A model's configuration as MELT has it, and what a translation returns: a value, and what it could not say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, NamedTuple, TypeVar

from melt_stream.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """What MELT's model YAML says; None where it does not. Texts are as the model gets them: no quotes of a shell, no escapes."""

    model: str | None = None
    url: str | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repeat_last_n: int | None = None
    n_batch: int | None = None
    """Prompt tokens a step."""
    mean_gen_len: int | None = None
    max_gen_len: int | None = None
    """Tokens of an answer, at most. LLMFarmEval counts characters against it."""
    max_window_size: int | None = None
    """Tokens of context."""
    vocab_size: int | None = None
    conv_template: str | None = None
    """Name of a conversation template of MLC's."""
    text: str | None = None
    """The system's text, before everything."""
    in_prefix: str | None = None
    in_suffix: str | None = None
    reverse: str | None = None
    """A text at which an answer ends."""
    chatml: bool | None = None
    """Wrap prompts as ChatML does, instead of by prefix and suffix."""

    def given(self) -> Iterator[tuple[str, Any]]:
        """Yield name and value of each field that is said."""
        for one in fields(self):
            if (value := getattr(self, one.name)) is not None:
                yield one.name, value


FIELDS = tuple(one.name for one in fields(ModelConfig))
WHOLE = frozenset(
    {"top_k", "repeat_last_n", "n_batch", "mean_gen_len", "max_gen_len", "max_window_size", "vocab_size"}
)
REAL = frozenset({"temperature", "repetition_penalty", "top_p"})
MOST_TEXT = 100_000
"""Characters of one text."""


class Lost(NamedTuple):
    """Something that the other format cannot say."""

    name: str
    """The field as the source has it."""
    why: str


@dataclass(frozen=True)
class Translated(Generic[T]):
    """A value in another format."""

    value: T
    lost: list[Lost] = field(default_factory=list)


def checked(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Make a configuration of fields by name; an empty text is none. Raises ``ConfigError`` naming ``where`` and the field."""
    made = {
        name: _checked(name, value, f"{where}: {name}") for name, value in values.items() if value is not None
    }
    return replace(ModelConfig(), **{name: value for name, value in made.items() if value != ""})


def unsaid(config: ModelConfig, said: frozenset[str], why: str) -> list[Lost]:
    """Return what a format that has only the fields ``said`` leaves out."""
    return [Lost(name, why) for name, _ in config.given() if name not in said]


def _checked(name: str, value: Any, where: str) -> Any:
    if name == "chatml":
        if value in ("", True, False):
            return value is not False
        raise ConfigError(f"{where}: expected true, false or nothing, got {value!r}")
    if name in WHOLE or name in REAL:
        return _number(value, where, whole=name in WHOLE)
    if not isinstance(value, str) or len(value) > MOST_TEXT or "\0" in value:
        got = type(value).__name__ if not isinstance(value, str) else f"{len(value)}, or a NUL"
        raise ConfigError(f"{where}: expected a text of at most {MOST_TEXT} characters, got {got}")
    return value


def _number(value: Any, where: str, *, whole: bool) -> float | int:
    wanted = "a whole number" if whole else "a number"
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or abs(value) > 1e15
        or not math.isfinite(value)
    ):
        raise ConfigError(f"{where}: expected {wanted}, got {value!r}"[:300])
    if whole and value != int(value):
        raise ConfigError(f"{where}: expected {wanted}, got {value!r}")
    return int(value) if whole else float(value)

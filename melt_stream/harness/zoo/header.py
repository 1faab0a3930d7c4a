"""What a GGUF file says of itself: widths, layers, types of its tensors, and what follows from them.

**Bits per weight** are 8 x the bytes of all tensors over their elements. **KV bytes per token** are, over the layers,
``kv heads x (key length + value length) x bytes of the type's block / its elements``; a length that the file does not
tell is ``width / heads``. Layers with a sliding window stop growing at the window, recurrent layers do not grow: where
the file has these, the number is an upper bound.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melt_stream.errors import ConfigError, DataError

KV_TYPES = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34), "Q5_1": (32, 24), "Q5_0": (32, 22), "Q4_1": (32, 20),
            "Q4_0": (32, 18), "IQ4_NL": (32, 18)}  # fmt: skip
"""What llama.cpp keeps a KV cache in: elements and bytes of a block."""
MOST_TENSORS, MOST_FIELDS = 1 << 16, 1 << 16
_COMMAND = ("-m", "melt_stream.harness.zoo._header_child")
_GUESSED = 1024
_SECONDS = 180
"""The child is limited to 120 s of a CPU's time."""


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``shape[0]`` is the length of a row, which blocks of quantised weights divide."""

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """How many weights."""
        count = 1
        for n in self.shape:
            count *= n
        return count


@dataclass(frozen=True)
class Header:
    """A GGUF model in numbers; what the file does not tell is None."""

    architecture: str
    title: str | None
    layers: int | None
    width: int | None
    feed_forward: int | None
    heads: int | None
    kv_heads: int | list[int] | None
    """One number, or one a layer where they differ."""
    context: int | None
    vocabulary: int | None
    sliding_window: int | None
    quantisation: str
    """As llama.cpp names the mix, such as ``Q4_K_M``; ``unknown`` where the file does not tell."""
    parameters: int
    """Elements of all tensors."""
    weight_bytes: int
    bits_per_weight: float
    kv_bytes_per_token: dict[str, float] | None
    """By type of the cache."""
    tensors: dict[str, dict[str, int]] = field(default_factory=dict)
    """By type: how many ``tensors``, of how many ``bytes``."""


def read(paths: Iterable[Path]) -> tuple[Header, list[Tensor]]:
    """Read the header of a model, in one GGUF file or several; raises ``DataError`` for one that is none, cut or hostile."""
    told = [_told(path) for path in paths]
    tensors = [_tensor(one) for part in told for one in part["tensors"]]
    fields = told[0]["fields"]
    name = fields.get("general.architecture")
    if not isinstance(name, str) or not tensors:
        raise DataError(
            f"expected a GGUF model with an architecture and tensors, got {name!r} and {len(tensors)}"
        )
    return _header(name, fields, tensors), tensors


def _told(path: Path) -> dict[str, Any]:
    """What the child process says of a file."""
    _look(path)
    command = [sys.executable, *_COMMAND, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as exc:
        raise DataError(f"{path}: expected a header that is read in {_SECONDS} s, got no end of it") from exc
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        if "No module named 'gguf'" in last:
            raise ConfigError(f"{path}: {last}; reading it needs: pip install 'melt-stream[zoo]'")
        raise DataError(
            f"{path}: expected a GGUF file's header, got exit status {done.returncode}: {last or 'no words'}"
        )
    told: dict[str, Any] = json.loads(done.stdout)
    if "error" in told:
        raise DataError(f"{path}: expected a GGUF file's header, got {told['error']}")
    return told


def _look(path: Path) -> None:
    """Refuse what is no GGUF file, or promises more than any has, before anything is read for long."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError as exc:
        raise DataError(f"{path}: expected a readable file, got {exc.strerror}") from exc
    if len(head) < 24 or head[:4] != b"GGUF":
        raise DataError(
            f"{path}: expected a GGUF file, got one of {len(head)} or more bytes that begins with {head[:4]!r}"
        )
    order = "<" if struct.unpack("<I", head[4:8])[0] & 0xFFFF else ">"
    tensors, fields = struct.unpack(f"{order}QQ", head[8:])
    if tensors > MOST_TENSORS or fields > MOST_FIELDS:
        raise DataError(
            f"{path}: expected at most {MOST_TENSORS} tensors and {MOST_FIELDS} fields, got {tensors} and {fields}"
        )


def _tensor(told: Sequence[Any]) -> Tensor:
    return Tensor(str(told[0]), str(told[1]), tuple(told[2]), int(told[3]))


def _kv_bytes(
    kv_heads: Any, layers: int | None, key: int | None, value: int | None
) -> dict[str, float] | None:
    if isinstance(kv_heads, int) and layers:
        kv_heads = [kv_heads] * layers
    if not isinstance(kv_heads, list) or key is None or value is None:
        return None
    numbers = sum(n for n in kv_heads if isinstance(n, int)) * (key + value)
    return {name: numbers * size / block for name, (block, size) in KV_TYPES.items()}


def _count(value: Any) -> int | None:
    if isinstance(value, dict):
        return int(value["count"])
    return len(value) if isinstance(value, list) else None


def _quantisation(number: Any) -> str:
    from gguf import LlamaFileType

    if not isinstance(number, int):
        return "unknown"
    try:
        name = LlamaFileType(number & ~_GUESSED).name
    except ValueError:
        return f"unknown ({number})"
    return name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _header(architecture: str, fields: Mapping[str, Any], tensors: Sequence[Tensor]) -> Header:
    def number(key: str) -> int | None:
        value = fields.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else None

    heads, width, layers = number("attention.head_count"), number("embedding_length"), number("block_count")
    kv_heads = fields.get(f"{architecture}.attention.head_count_kv", heads)
    title = fields.get("general.name")
    elements, size = sum(t.elements for t in tensors), sum(t.bytes for t in tensors)
    key = number("attention.key_length") or (width // heads if width and heads else None)
    value = number("attention.value_length") or (width // heads if width and heads else None)
    by_type: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        seen = by_type.setdefault(tensor.type, {"tensors": 0, "bytes": 0})
        seen["tensors"] += 1
        seen["bytes"] += tensor.bytes
    return Header(
        architecture, title if isinstance(title, str) else None, layers, width, number("feed_forward_length"),
        heads, kv_heads if isinstance(kv_heads, int | list) else None, number("context_length"),
        number("vocab_size") or _count(fields.get("tokenizer.ggml.tokens")), number("attention.sliding_window"),
        _quantisation(fields.get("general.file_type")), elements, size, 8 * size / elements if elements else 0.0,
        _kv_bytes(kv_heads, layers, key, value), by_type,
    )  # fmt: skip

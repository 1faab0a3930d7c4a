"""GGUF to fewer bits, by llama.cpp: a ``llama-quantize`` where there is one, else that of the wheel ``cyllama``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melt_stream.collectors._driver import driver
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.zoo import running
from melt_stream.harness.zoo.artefact import ORIGINAL, Artefact, hashed
from melt_stream.harness.zoo.header import Tensor
from melt_stream.harness.zoo.making import Made, described, inputs, once, recipe
from melt_stream.harness.zoo.store import Store, usable
from melt_stream.plugins import nearest

BINARY = "MELT_STREAM_LLAMA_QUANTIZE"
"""Environment variable: the path of a ``llama-quantize``."""
FULL = frozenset({"F32", "F16", "BF16"})
"""Types that nothing was quantised in."""
MOST_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0}
"""Bits per weight at most, for the disk needed; of the others Q8_0, to which they fall back, has the most."""
_BUILD = re.compile(r"build\s*[=:]\s*(\d+ \([0-9a-f]+\))")
_SAID = re.compile(r"(\d+) of \d+ tensor\(s\) required fallback")


@dataclass(frozen=True)
class Tool:
    """What quantises: a ``llama-quantize``, or cyllama where ``binary`` is empty."""

    binary: str = ""

    @property
    def name(self) -> str:
        """As the recipe names it."""
        return "llama-quantize" if self.binary else "cyllama"

    def version(self, said: str) -> str:
        """The build that a binary told when it ran, and its hash; or the wheel's version."""
        if not self.binary:
            return importlib.metadata.version("cyllama")
        build = _BUILD.search(said)
        return f"build {build[1] if build else 'unknown'}, sha256 {hashed('', Path(self.binary)).sha256}"

    def arguments(self, to: str, threads: int, *, requantise: bool) -> list[str]:
        """Return the arguments, with ``{input}`` and ``{output}`` for the files."""
        if self.binary:
            return [*(["--allow-requantize"] if requantise else []), "{input}", "{output}", to, str(threads)]
        return ["{input}", "{output}", str(targets()[to]), str(threads), str(int(requantise))]

    def command(self, arguments: Iterable[str], source: Path, target: Path) -> list[str]:
        """Return the whole command."""
        child = [sys.executable, "-m", "melt_stream.harness.zoo._quantise_child"]
        places = {"{input}": str(source), "{output}": str(target)}
        return [*([self.binary] if self.binary else child), *(places.get(part, part) for part in arguments)]


def tool(asked: str = "") -> Tool:
    """Choose: what is asked for (``cyllama``, or a path), else $MELT_STREAM_LLAMA_QUANTIZE, PATH's, cyllama.

    Raises ``ConfigError`` where it is not there.
    """
    if asked != "cyllama":
        said = asked or os.environ.get(BINARY, "")
        if found := shutil.which(said or "llama-quantize"):
            return Tool(str(Path(found).resolve()))
        if said:
            raise ConfigError(f"expected a llama-quantize that can be run, got {said!r}")
    if importlib.util.find_spec("cyllama") is None:
        raise ConfigError(
            f"expected llama-quantize on PATH or at ${BINARY}, or the package cyllama, got none; try: pip install 'melt-stream[zoo]'"
        )
    return Tool()


def targets() -> dict[str, int]:
    """Return what can be asked for, and llama.cpp's number of it."""
    kinds = driver("gguf", "quantise", "zoo").LlamaFileType
    return {
        kind.name.removeprefix("MOSTLY_").removeprefix("ALL_"): int(kind)
        for kind in kinds
        if kind.name != "GUESSED"
    }


def target(text: str) -> str:
    """Return a quantisation by its name in any case; raises ``ConfigError``, which names the nearest."""
    if (name := text.upper()) not in (known := targets()):
        raise ConfigError(f"expected a quantisation of llama.cpp, got {text!r}; {nearest(name, known)}")
    return name


def quantise(
    store: Store,
    model: str,
    to: str,
    *,
    source: str = "",
    asked: str = "",
    requantise: bool = False,
    threads: int = 0,
) -> Artefact:
    """Return a model of the zoo in the quantisation ``to``, made where it is not there yet; blocks.

    ``source`` is the variant it is made of, the pulled or converted one unless told; ``asked`` the tool, see ``tool``.
    A source that is quantised already loses more: that needs ``requantise``, and the recipe says it. Raises
    ``ConfigError`` before anything is made, ``DeviceError`` with the exit status where the tool fails, ``DataError`` where it
    wrote something else.
    """
    to, origin = target(to), usable(source_of(store, model, source))
    wanted = {"operation": "quantise", "to": to, "inputs": inputs(origin)}
    if asked:
        wanted["tool"] = tool(asked).name

    def work(folder: Path) -> Made:
        return _work(
            store, folder, origin, to, wanted, tool(asked), requantise, threads or os.cpu_count() or 1
        )

    return once(store, model, to, wanted, work)


def source_of(store: Store, model: str, variant: str = "") -> Artefact:
    """Return the GGUF that others are made of: the variant, or what was pulled, or the best that was converted of it."""
    for name in (variant,) if variant else (ORIGINAL, "F32", "BF16", "F16", "Q8_0"):
        if (found := store.get(model, name)) is not None and found.format == "gguf":
            return found
    there = [one.name for one in store.artefacts(model)]
    raise ConfigError(
        f"{model}: expected a GGUF file {variant or 'that was pulled or converted'}, got {', '.join(there) or 'nothing'}; "
        f"try `melt-stream zoo {'convert' if there else 'pull'} {model}`"
    )


def fallbacks(to: str, tensors: Iterable[Tensor]) -> dict[str, Any]:
    """Count the weights that could not have a type of the mix ``to``: blocks do not divide their rows.

    ``{"tensors": n, "of": weights in all, "types": {type: n}}``. Blocks have 256 elements in the k- and i-quants (but
    IQ4_NL), 32 in the others; vectors and what is kept in F32 are not counted.
    """
    weights = [
        tensor for tensor in tensors if len(tensor.shape) > 1 and tensor.shape[1] > 1 and tensor.type != "F32"
    ]
    fell = [tensor for tensor in weights if tensor.shape[0] % block(to)]
    types: dict[str, int] = {}
    for tensor in fell:
        types[tensor.type] = types.get(tensor.type, 0) + 1
    return {"tensors": len(fell), "of": len(weights), "types": types}


def block(to: str) -> int:
    """Elements of a block of the types that a quantisation mixes."""
    if to in FULL:
        return 1
    return 256 if re.search(r"_K(_|$)|^IQ(?!4_NL)|^TQ", to) else 32


def _work(
    store: Store,
    folder: Path,
    origin: Artefact,
    to: str,
    wanted: Mapping[str, Any],
    by: Tool,
    requantise: bool,
    threads: int,
) -> Made:
    header = origin.header or {}
    lossy = sorted(set(header.get("tensors", {})) - FULL)
    if lossy and not requantise:
        raise ConfigError(
            f"{origin.reference}: expected weights in {', '.join(sorted(FULL))}, got {origin.quantisation} ({', '.join(lossy)}); "
            "quantising them again loses more than once from the original: ask for it with --requantize"
        )
    bits = MOST_BITS.get(to, 8.5)
    store.require(int(header.get("parameters", 0) * bits / 8), f"quantise {origin.name} to {to}")
    made = folder / f"{origin.model}-{to}.gguf"
    arguments = by.arguments(to, threads, requantise=bool(lossy))
    took = running.run(by.command(arguments, origin.path, made), folder, f"{by.name}: {origin.name} to {to}")
    told, tensors = described({made.name: made})
    if told["quantisation"] != to:
        raise DataError(
            f"{by.name}: {origin.name}: expected a file in {to}, got one in {told['quantisation']}"
        )
    said = _SAID.search(took.said)
    how = recipe(
        {**wanted, "tool": by.name}, version=by.version(took.said), arguments=arguments, seconds=took.seconds,
        peak_memory=took.peak_memory, fallbacks={**fallbacks(to, tensors), "tool_said": int(said[1]) if said else None},
        loss=f"made of {origin.quantisation}, not of full precision: what that lost stays lost" if lossy else "",
    )  # fmt: skip
    return Artefact(origin.model, to, "gguf", how, origin.licence, told), {made.name: made}

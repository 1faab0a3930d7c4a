"""Hugging Face folders to GGUF, by llama.cpp's own converter, where that is installed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from melt_stream.errors import ConfigError
from melt_stream.harness.zoo import running
from melt_stream.harness.zoo.artefact import ORIGINAL, Artefact, hashed
from melt_stream.harness.zoo.making import Made, described, inputs, once, recipe
from melt_stream.harness.zoo.store import Store, usable

CONVERTER = "MELT_STREAM_CONVERT_HF_TO_GGUF"
"""Environment variable: the path of llama.cpp's ``convert_hf_to_gguf.py``."""
SCRIPT = "convert_hf_to_gguf.py"
TYPES = ("F16", "BF16", "F32", "Q8_0")
"""What it writes."""


def converter(asked: str = "") -> Path:
    """Return the converter's path: as asked, of $MELT_STREAM_CONVERT_HF_TO_GGUF, or PATH's; raises ``ConfigError``."""
    said = asked or os.environ.get(CONVERTER) or shutil.which(SCRIPT) or ""
    if not Path(said).is_file():
        raise ConfigError(
            f"convert: expected llama.cpp's {SCRIPT}, got {said or 'none'}; it comes with llama.cpp's source: give its path "
            f"with --converter or ${CONVERTER}, and with --python one that has its requirements (torch, transformers)"
        )
    return Path(said).resolve()


def convert(store: Store, model: str, to: str = "F16", *, asked: str = "", python: str = "") -> Artefact:
    """Return a pulled Hugging Face model as GGUF in the type ``to``, made where it is not there yet; blocks.

    ``python`` runs the converter, ours unless told. Raises ``ConfigError`` before anything is made, ``DeviceError`` with
    the exit status where the converter fails.
    """
    if (to := to.upper()) not in TYPES:
        raise ConfigError(
            f"convert: expected one of {', '.join(TYPES)}, got {to!r}; quantise the result for less"
        )
    origin = store.get(model, ORIGINAL)
    if origin is None or origin.format != "hf":
        got = "nothing" if origin is None else f"{origin.format}, which needs no converter"
        raise ConfigError(
            f"{model}: expected a pulled folder of safetensors, got {got}; try `melt-stream zoo pull {model}`"
        )
    source = usable(origin)
    wanted = {"operation": "convert", "to": to, "inputs": inputs(source)}

    def work(folder: Path) -> Made:
        script = converter(asked)
        store.require(source.bytes * (2 if to == "F32" else 1), f"convert {model}")
        made = folder / f"{model}-{to}.gguf"
        arguments = ["{input}", "--outfile", "{output}", "--outtype", to.lower()]
        places = {"{input}": str(source.folder), "{output}": str(made)}
        command = [python or sys.executable, str(script), *(places.get(part, part) for part in arguments)]
        took = running.run(command, folder, f"{SCRIPT}: {model} to {to}")
        how = recipe(
            wanted, tool=SCRIPT, version=f"sha256 {hashed('', script).sha256}", arguments=arguments, seconds=took.seconds,
            peak_memory=took.peak_memory,
        )  # fmt: skip
        return Artefact(model, to, "gguf", how, source.licence, described({made.name: made})[0]), {
            made.name: made
        }

    return once(store, model, to, wanted, work)

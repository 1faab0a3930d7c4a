"""What other programs make of a model (MLC, AWQ, GPTQ, ...), by a recipe in TOML: their command, what goes in and comes out.

::

    variant = "mlc-q4f16_1"
    format = "mlc"
    command = ["mlc_llm", "convert_weight", "{input}", "--quantization", "q4f16_1", "-o", "{output}"]
    version = ["mlc_llm", "--version"]
    outputs = ["*.bin", "*.json"]
    inputs = ["calibration.jsonl"]

``{input}`` is the model's folder, ``{model}`` the file or folder that a runtime loads, ``{output}`` an empty folder, and ``{0}``,
``{1}``, ... are the ``inputs``, relative to the recipe. The command is run in the recipe's folder, as a list of
arguments, never by a shell.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.zoo import running
from melt_stream.harness.zoo.artefact import ORIGINAL, Artefact, hashed
from melt_stream.harness.zoo.making import Made, described, inputs, once, recipe
from melt_stream.harness.zoo.pull import chosen
from melt_stream.harness.zoo.references import VARIANT
from melt_stream.harness.zoo.store import Store, usable
from melt_stream.plugins import configure

_PLACE = re.compile(r"\{(input|model|output|\d+)\}")
_VERSION_S = 60


@dataclass(frozen=True)
class External:
    """One recipe; each field is a key of its file."""

    variant: Annotated[str, Field(pattern=VARIANT)]
    format: str
    """What the result is called; ``gguf`` where that is what comes out."""
    command: Annotated[list[str], Field(min_length=1)]
    outputs: Annotated[list[str], Field(min_length=1)]
    """Names or patterns of the files to keep of ``{output}``; each must be there."""
    source: str = ORIGINAL
    """The variant that it is made of."""
    version: list[str] = field(default_factory=list)
    """A command that says the tool's version."""
    inputs: list[str] = field(default_factory=list)
    """Further files that go in, such as what it is calibrated with."""
    needs_bytes: Annotated[int, Field(ge=0)] = 0
    """Disk that the command needs; twice the source's size where it is not told."""

    def __post_init__(self) -> None:
        places = {place for part in self.command for place in _PLACE.findall(part)}
        if "output" not in places or not places & {"input", "model"}:
            raise ValueError(f"command: expected {{input}} or {{model}}, and {{output}}, got {self.command}")
        if beyond := [place for place in places if place.isdigit() and int(place) >= len(self.inputs)]:
            raise ValueError(f"command: expected one of {len(self.inputs)} inputs, got {{{beyond[0]}}}")


def read(path: Path) -> External:
    """Read a recipe; ``ConfigError`` names the file and the key."""
    try:
        made: External = configure(External, tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"{path}: expected a recipe in TOML, got {exc}") from exc
    return made


def make(store: Store, model: str, path: Path) -> Artefact:
    """Return what the recipe at ``path`` makes of a model, made where it is not there yet; blocks.

    Raises ``ConfigError`` before anything is made, ``DeviceError`` with the exit status where the command fails, and
    ``DataError`` where an output is missing.
    """
    asked = read(path)
    source = store.find(model, asked.source)
    if source is None:
        raise ConfigError(
            f"{model}: expected its variant {asked.source!r}, got none; try `melt-stream zoo pull {model}`"
        )
    more = [path.parent / name for name in asked.inputs]
    wanted = {
        "operation": "external", "command": asked.command,
        "inputs": inputs(usable(source)) | {name: _hash(one) for name, one in zip(asked.inputs, more, strict=True)},
    }  # fmt: skip

    def work(folder: Path) -> Made:
        store.require(asked.needs_bytes or 2 * source.bytes, f"{asked.variant} of {model}")
        return _work(folder, asked, source, more, wanted, path.resolve().parent)

    return once(store, model, asked.variant, wanted, work)


def _work(
    folder: Path,
    asked: External,
    source: Artefact,
    more: list[Path],
    wanted: Mapping[str, Any],
    recipes: Path,
) -> Made:
    output = folder / "output"
    output.mkdir()
    places = {"input": source.folder, "model": source.path, "output": output} | {
        str(n): p.resolve() for n, p in enumerate(more)
    }
    command = [_PLACE.sub(lambda found: str(places[found[1]]), part) for part in asked.command]
    took = running.run(command, folder, f"{asked.variant} of {source.name}", cwd=recipes)
    names = [
        one.relative_to(output).as_posix()
        for one in sorted(output.rglob("*"))
        if one.is_file() and not one.is_symlink()
    ]
    try:
        files = {name: output / name for name in chosen(names, asked.outputs, f"{asked.variant}: {output}")}
    except ConfigError as exc:
        raise DataError(str(exc)) from exc
    header = described(files)[0] if asked.format == "gguf" else None
    how = recipe(
        wanted, tool=asked.command[0], version=_version(asked.version, recipes), arguments=asked.command[1:], seconds=took.seconds,
        peak_memory=took.peak_memory,
    )  # fmt: skip
    return Artefact(source.model, asked.variant, asked.format, how, source.licence, header), files


def _hash(path: Path) -> str:
    try:
        return hashed("", path).sha256
    except OSError as exc:
        raise ConfigError(f"inputs: expected a readable file at {path}, got {exc.strerror}") from exc


def _version(command: list[str], folder: Path) -> str:
    """What a command says of its version; empty where none was given, and why not where it fails."""
    if not command:
        return ""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_VERSION_S,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"unknown: {exc}"
    return (done.stdout.strip() or done.stderr.strip())[:200]

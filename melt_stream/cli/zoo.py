"""``melt-stream zoo``: models as data, their files, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from melt_stream.cli._app import FAILED
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table, say
from melt_stream.errors import ConfigError

if TYPE_CHECKING:
    from melt_stream.harness.zoo.artefact import Artefact

app = App(
    name="zoo",
    help="The models: list, pull, verify, info, rm; convert and quantize them.",
    result_action="return_value",
)
ModelName = Annotated[str, Parameter(help="A model's name, as `melt-stream zoo list` has it.")]
ArtefactName = Annotated[str, Parameter(help="NAME for what was pulled, or NAME/VARIANT.")]
Models = Annotated[
    tuple[Path, ...],
    Parameter(
        name="--models", negative="", help="A TOML file of further models; can be given several times."
    ),
]
COLUMNS = ("model", "family", "parameters", "context", "licence", "gated", "source", "in the zoo")


@app.command(name="list")
def list_(*, models: Models = (), options: Options = NO_OPTIONS) -> None:
    """List the models that are known, and which of their variants are in the zoo."""
    from melt_stream.harness.zoo.references import known
    from melt_stream.harness.zoo.store import Store

    store = Store()
    found = known(store, models)
    there: dict[str, list[Artefact]] = {}
    for artefact in store.artefacts():
        there.setdefault(artefact.model, []).append(artefact)
    rows = [
        {
            "model": name, "family": one.about.family, "parameters": one.about.parameters, "context": one.about.context,
            "template": one.about.template, "licence": one.licence.name, "gated": one.licence.gated, "url": one.licence.url,
            "source": str(one.source), "paper": one.about.paper, "note": one.about.note,
            "in the zoo": [artefact.variant for artefact in there.get(name, ())],
        }
        for name, one in found.items()
    ] + [{"model": name, "in the zoo": [one.variant for one in kept]} for name, kept in there.items() if name not in found]  # fmt: skip
    if options.json:
        print_json(rows)
    else:
        cells = [[_cell(row.get(column)) for column in COLUMNS] for row in rows]
        print_table("", COLUMNS, cells, caption=f"zoo: {store.root}")


@app.command
def pull(*names: ModelName, models: Models = (), options: Options = NO_OPTIONS) -> None:
    """Fetch models as they are published; what was interrupted is gone on with."""
    from melt_stream.harness.zoo import pull as pulling
    from melt_stream.harness.zoo import registry
    from melt_stream.harness.zoo.references import known
    from melt_stream.harness.zoo.store import Store

    store = Store(say=say)
    found = known(store, models)
    for model in [registry.named(found, name) for name in _some(names, "pull")]:
        say(f"{model.name}: {model.source}, {model.licence.name}")
        _tell(pulling.pull(store, model), options)


@app.command
def verify(*names: ArtefactName, options: Options = NO_OPTIONS) -> int:
    """Read files of the zoo again and compare their sha256; all of them where none is named. Exit status 1 for a difference."""
    from melt_stream.harness.zoo.store import Store

    store = Store()
    wrong = {one.name: store.verify(one) for one in (_found(store, names) if names else store.artefacts())}
    if options.json:
        print_json(wrong)
    else:
        for name, faults in wrong.items():
            say("\n".join(faults) or f"{name}: as it was")
    return FAILED if any(wrong.values()) else 0


@app.command
def info(
    what: Annotated[str, Parameter(help="NAME, NAME/VARIANT, or a GGUF file.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Tell what a GGUF model is: layers, widths, bits per weight, KV bytes per token; and, of the zoo's, its recipe."""
    from melt_stream.harness.zoo import header
    from melt_stream.harness.zoo.references import there
    from melt_stream.harness.zoo.store import Store

    if Path(what).is_file():
        told: dict[str, Any] = {"path": what, **vars(header.read([Path(what)])[0])}
    else:
        found = there(Store(), what)
        told = {"artefact": found.name, "path": str(found.path), "bytes": found.bytes, "sha256": found.sha256}
        told |= {**(found.header or {}), "licence": found.licence["name"], "recipe": dict(found.recipe)}
    if options.json:
        print_json(told)
    else:
        print_table("", ("what", "value"), _flat(told))


@app.command
def rm(
    *names: ArtefactName,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    options: Options = NO_OPTIONS,
) -> None:
    """Remove artefacts; content that another artefact has stays."""
    from melt_stream.harness.zoo.store import Store, size

    store = Store()
    for found in _found(store, _some(names, "rm")):
        if not yes and input(f"remove {found.name}, {size(found.bytes)}? [y/N] ").strip().lower() != "y":
            continue
        freed = store.remove(found)
        if options.json:
            print_json({"removed": found.name, "freed_bytes": freed})
        else:
            say(f"removed {found.name}, {size(freed)} freed")


@app.command
def convert(
    name: ModelName,
    /,
    *,
    to: Annotated[str, Parameter(help="F16, BF16, F32 or Q8_0.")] = "F16",
    converter: Annotated[str, Parameter(help="Path of llama.cpp's convert_hf_to_gguf.py.")] = "",
    python: Annotated[str, Parameter(help="A Python that has what the converter needs.")] = "",
    recipe: Annotated[
        Path | None, Parameter(help="Instead: a TOML recipe of another program (MLC, AWQ, GPTQ).")
    ] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Turn a pulled Hugging Face model into GGUF by llama.cpp's own converter, or into what a recipe makes of it."""
    from melt_stream.harness.zoo import convert as converting
    from melt_stream.harness.zoo import external
    from melt_stream.harness.zoo.store import Store

    store = Store(say=say)
    model = _model(name)
    if recipe is not None:
        _tell(external.make(store, model, recipe), options)
    else:
        _tell(converting.convert(store, model, to, asked=converter, python=python), options)


@app.command
def quantize(
    name: ModelName,
    /,
    *,
    to: Annotated[
        tuple[str, ...],
        Parameter(negative="", help="F16, Q8_0, Q4_0, Q4_K_M, Q3_K_S, ...; can be given several times."),
    ],
    source: Annotated[
        str,
        Parameter(name="--from", help="The variant to make it of (default: what was pulled or converted)."),
    ] = "",
    tool: Annotated[
        str, Parameter(help="A llama-quantize, or cyllama (default: what is there, in this order).")
    ] = "",
    requantize: Annotated[
        bool, Parameter(negative="", help="Allow what is quantised already as the source: that loses more.")
    ] = False,
    threads: Annotated[int, Parameter(help="0: one a CPU.")] = 0,
    options: Options = NO_OPTIONS,
) -> None:
    """Make a GGUF model smaller; each artefact is made once, with its recipe."""
    from melt_stream.harness.zoo.quantise import quantise
    from melt_stream.harness.zoo.store import Store

    store = Store(say=say)
    for wanted in to:
        made = quantise(
            store, _model(name), wanted, source=source, asked=tool, requantise=requantize, threads=threads
        )
        _tell(made, options)
        if loss := made.recipe.get("loss"):
            say(f"{made.name}: {loss}")


def _some(names: tuple[str, ...], command: str) -> tuple[str, ...]:
    if not names:
        raise ConfigError(f"zoo {command}: expected names, got none; `melt-stream zoo list` has them")
    return names


def _model(name: str) -> str:
    from melt_stream.harness.zoo.references import Reference

    reference = Reference.parse(name)
    if reference.name != reference.model:
        raise ConfigError(f"expected a model's name, got {name!r}; say the variant with --from or --to")
    return reference.model


def _found(store: Any, names: Iterable[str]) -> list[Artefact]:
    """The artefacts of these names, damaged or not."""
    from melt_stream.harness.zoo.references import Reference

    found = []
    for name in names:
        reference = Reference.parse(name)
        if (one := store.get(reference.model, reference.variant)) is None:
            there = ", ".join(artefact.name for artefact in store.artefacts()) or "nothing"
            raise ConfigError(
                f"expected an artefact of the zoo at {store.root}, got {name!r}; there is {there}"
            )
        found.append(one)
    return found


def _tell(made: Artefact, options: Options) -> None:
    from melt_stream.harness.zoo.store import size

    if options.json:
        print_json(
            {
                "artefact": made.reference,
                "path": str(made.path),
                "bytes": made.bytes,
                "sha256": made.sha256,
                "recipe": dict(made.recipe),
            }
        )
    else:
        say(f"{made.reference}  {made.quantisation or made.format}, {size(made.bytes)}  {made.path}")


def _flat(told: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """A table's rows of nested values."""
    rows: list[tuple[str, Any]] = []
    for key, value in told.items():
        name = f"{above}{key.replace('_', ' ')}" if not above else f"{above}{key}"
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{name}: "))
        else:
            rows.append((name, _cell(value)))
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    return {True: "yes", False: None}.get(value, value) if isinstance(value, bool) else value

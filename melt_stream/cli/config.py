"""``melt-stream config translate``: a model's configuration from one runtime's format into another's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from melt_stream.cli._common import NO_OPTIONS, Options, print_json, say

app = App(
    name="config", help="Translate a model's configuration between runtimes.", result_action="return_value"
)


@app.command
def translate(
    file: Annotated[
        Path, Parameter(help="MELT's model YAML, LLMFarm's or MLC's JSON, or llama.cpp's arguments.")
    ],
    /,
    *,
    to: Annotated[
        str, Parameter(help="melt, llama.cpp, llama-server, workload, llmfarm, llmfarm-eval or mlc.")
    ],
    of: Annotated[str | None, Parameter(help="What FILE is, where its name and fields do not tell.")] = None,
    options: Options = NO_OPTIONS,
) -> None:
    """Print a configuration in another format on stdout; tell on stderr what that format, or MELT's, cannot say."""
    from melt_stream.harness.configs.formats import as_text, read, write

    config = read(file, of)
    made = write(config.value, to)
    lost = [*config.lost, *made.lost]
    if options.json:
        print_json({"format": to, "value": made.value, "lost": [one._asdict() for one in lost]})
        return
    print(as_text(made.value, to), end="")
    for name, why in lost:
        say(f"not translated: {name}: {why}")

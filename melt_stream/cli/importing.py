"""``melt-stream import``: a recording of another tool becomes a run like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from melt_stream.analysis.pack import pack
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, say
from melt_stream.cli._recording import where
from melt_stream.cli._specs import parse
from melt_stream.harness.session import import_recording


def import_(
    kind: Annotated[
        str, Parameter(help="KIND[:key=value,...]: what it is; `melt-stream collectors` lists the importers.")
    ],
    path: Annotated[Path, Parameter(help="Its file or folder.")],
    /,
    *,
    options: Options = NO_OPTIONS,
) -> None:
    """Import a recording, pack it, and print where it is."""
    name, settings = parse(kind)
    packed = pack(import_recording(name, path, options.folder, settings))
    if options.json:
        print_json(where(packed.path))
    else:
        say(f"run     {packed.path}")

"""llama.cpp's server out of the wheel ``xllamacpp``, in a process of its own: ``python -m ..._llama_child``.

Prints ``listening on URL`` when the model is loaded and warm, and ends when its stdin does: the pipe from the
process that started it closes with that process, however it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    for name in ("threads", "n-ctx", "n-batch", "slots"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args(arguments)
    server = serve(
        options.model, threads=options.threads, n_ctx=options.n_ctx, n_batch=options.n_batch, slots=options.slots
    )  # fmt: skip
    sys.stdout.write(f"listening on {server.listening_address}\n")
    sys.stdout.flush()
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)  # the native server's threads need no goodbye


def serve(model: str, *, threads: int, n_ctx: int, n_batch: int, slots: int, verbosity: int = 2) -> Any:
    """Return a server on a free port, its model loaded and warm; ``n_ctx`` is of all slots together.

    ``verbosity`` 2: warnings and errors, which end up in the message if it dies; 3: what it does, too.
    """
    import xllamacpp  # 0.04 s, and only here: a driver is loaded where it runs

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {Path(model).name}
    params.port = 0
    params.n_ctx = n_ctx
    params.n_parallel = slots
    params.n_batch = params.n_ubatch = n_batch
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.fit_params = False  # what was asked for, not what would fit
    params.ui = False
    params.verbosity = verbosity
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()

"""``melt-stream``, the command line: one module a command, the composition root of everything below.

A command's module is imported only when the command runs, so that ``--help`` stays quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit status: 0 good, 1 failed, 2 usage, 3 inconclusive."""
    from melt_stream.cli._app import run

    sys.exit(run(sys.argv[1:]))

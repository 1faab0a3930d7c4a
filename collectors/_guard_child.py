"""The child that puts conditions back where the recorder was killed: it waits at its stdin, and acts if that ends too early.

Each line is a whole plan, which takes the place of the one before and is acknowledged; ``done`` says that there is nothing to do.
"""

from __future__ import annotations

import sys
from contextlib import suppress

DONE = b"done\n"
NOTED = b"noted\n"


def main() -> None:
    """Wait; then put back what the last whole plan says, and write to stderr what could not be."""
    plan = b""
    for line in sys.stdin.buffer:
        if line == DONE:
            return
        if line.endswith(b"\n"):
            plan = line
            with suppress(BrokenPipeError):  # it was killed just now
                sys.stdout.buffer.write(NOTED)
                sys.stdout.buffer.flush()
    if plan:
        _act(plan)


def _act(plan: bytes) -> None:
    # Imported only now: it waits for hours without trio, asyncssh and Arrow in memory.
    import trio

    from melt_stream.collectors._undoing import put_back, unpacked

    device, undos, patience_s = unpacked(plan)
    for line in trio.run(put_back, device, undos, patience_s):
        sys.stderr.write(f"melt-stream: the recorder was killed; {line}\n")


if __name__ == "__main__":
    main()

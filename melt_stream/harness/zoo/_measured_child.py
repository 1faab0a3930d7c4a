"""Runs one command and says what it took: ``python -m ..._measured_child REPORT FOLDER COMMAND...``.

A process of its own, so that the peak memory that the kernel tells is this command's alone. (What it counts begins at
the few MB of this process.) ``running.py`` reads the report.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from melt_stream.clock import monotonic


def main(report: str, folder: str, command: list[str]) -> None:
    """Run it in ``folder``, and write exit status, seconds and peak resident bytes as JSON."""
    began = monotonic()
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)
    except OSError as exc:
        Path(report).write_text(json.dumps({"error": f"{command[0]}: {exc.strerror}"}))
        return
    _, status, usage = os.wait4(process.pid, 0)
    told = {
        "status": os.waitstatus_to_exitcode(status), "seconds": (monotonic() - began) / 1e9,
        "peak_memory": usage.ru_maxrss * 1024,
    }  # fmt: skip
    Path(report).write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

"""``python -m melt_stream`` is ``melt-stream``."""

from __future__ import annotations

from melt_stream.cli import main

main()

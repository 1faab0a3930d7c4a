"""A run as one HTML file that opens from disk: plots, tables, provenance, and no network.

``gather`` reads the run, ``series`` thins it out with minima and maxima kept, ``figures`` makes plotly's plain
dictionaries, ``tables`` the HTML tables, ``page`` puts them into ``report.html`` with its style and script.
"""

from __future__ import annotations

from pathlib import Path

from melt_stream.analysis.report.gather import gather
from melt_stream.analysis.report.page import page
from melt_stream.run import Run


def build(run: Run, out_path: Path) -> Path:
    """Write the report of a packed run to ``out_path`` and return it; the folder must exist."""
    out_path.write_text(page(gather(run)), encoding="utf-8")
    return out_path

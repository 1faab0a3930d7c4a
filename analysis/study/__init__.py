"""A study's runs as tables and one page: cells with intervals, energy by phase, how it went over time, accuracy against energy.

``gather`` makes rows of packed runs, ``pareto`` finds what nothing else beats, ``tables`` and ``figures`` show them, ``page`` puts
them together.
"""

from __future__ import annotations

from melt_stream.analysis.study.gather import Cell, Material, gather
from melt_stream.analysis.study.page import page
from melt_stream.analysis.study.tables import as_arrow

__all__ = ["Cell", "Material", "as_arrow", "gather", "page"]

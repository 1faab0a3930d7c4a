"""Two or more sides, each one or some runs, compared: differences with intervals, and what else differs between them.

``observed`` makes values of a side's runs, ``statistics`` differences of the values, ``common`` says how much of the meters'
uncertainty is left in a ratio, ``differing`` what differs in recipe and environment, ``budget`` judges a limit, ``comparing`` puts
them together, ``told`` says it.
"""

from __future__ import annotations

from melt_stream.analysis.compare.budget import Budget, Verdict
from melt_stream.analysis.compare.comparing import Comparison, Result, compare
from melt_stream.analysis.compare.observed import Side, side, study_keys

__all__ = ["Budget", "Comparison", "Result", "Side", "Verdict", "compare", "side", "study_keys"]

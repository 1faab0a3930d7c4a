"""Studies: one file, the cells that its axes span, and runs of each until all are done.

``read`` a file (``file``) into a ``Study`` whose cells (``cells``) are all checked; the archive says what of it is done (``ledger``); ``conduct`` makes
the runs that are left (``order``), each an ``attempt``: commands before and after it (``commands``), a wait until the device has cooled down
(``cooldown``), and, where it failed, why (``failure``, ``witness``).
"""

from __future__ import annotations

from melt_stream.harness.study.cells import Cell
from melt_stream.harness.study.conduct import Observer, conduct
from melt_stream.harness.study.expect import Expected, expectations
from melt_stream.harness.study.file import Study, is_study, read, study_of
from melt_stream.harness.study.ledger import Ledger, ledger
from melt_stream.harness.study.order import Slot, slots

__all__ = [
    "Cell", "Expected", "Ledger", "Observer", "Slot", "Study", "conduct", "expectations", "is_study", "ledger", "read", "slots", "study_of",
]  # fmt: skip

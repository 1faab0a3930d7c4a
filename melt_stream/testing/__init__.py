"""For tests of collectors and sinks, ours and yours.

``Keep`` is a sink that keeps what it gets, ``observe`` runs a collector on a clock that jumps, ``FakeTree`` is a folder
with files that vanish or cannot be read, ``check_collector`` and ``check_sink`` hold a plug-in to its contract, and
``made_from_example`` makes it without hardware. ``simulate_marker`` is a marker as a meter would show it.
"""

from melt_stream.testing.checks import check_collector, check_sink
from melt_stream.testing.examples import made_from_example
from melt_stream.testing.keep import Keep
from melt_stream.testing.markers import simulate_marker
from melt_stream.testing.observing import observe, trio_now
from melt_stream.testing.trees import FakeTree

__all__ = [
    "FakeTree", "Keep", "check_collector", "check_sink", "made_from_example", "observe", "simulate_marker", "trio_now",
]  # fmt: skip

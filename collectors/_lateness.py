"""How late samples arrive, by a clock that is their count: what tells a loss that a counter modulo N does not show."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

BUCKET_NS = 1_000_000_000
BUCKETS = 3
"""The least delay of the last 2 to 3 s is what a sample needs: a clock 1000 ppm off moves it by 3 ms."""


@dataclass
class Lateness:
    """Delay of samples against the fastest of the last seconds, by the nominal period."""

    period_ns: float
    _floors: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=BUCKETS))

    def of(self, tick: int, arrival: int) -> float:
        """Return by how many ns ``tick``, which came at ``arrival``, is later than the fastest was; 0 for the first."""
        if not self._floors:
            return 0.0
        return arrival - tick * self.period_ns - min(floor for _, floor in self._floors)

    def saw(self, tick: int, arrival: int) -> None:
        """Take in that ``tick``, counted rightly, came at ``arrival``."""
        delay, bucket = arrival - tick * self.period_ns, arrival // BUCKET_NS
        if self._floors and self._floors[-1][0] == bucket:
            self._floors[-1] = (bucket, min(delay, self._floors[-1][1]))
        else:
            self._floors.append((bucket, delay))

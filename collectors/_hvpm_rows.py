"""What the black Monsoon decoded becomes rows, gaps of their true length, and readings of its sample clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from melt_stream.clock import Clock
from melt_stream.collectors._decode_hvpm import CALIBRATED, DAMAGED, INVALID, LOST, UNCALIBRATED
from melt_stream.collectors._hvpm import Decoded, Decoder
from melt_stream.collectors._hvpm_pump import Block
from melt_stream.collectors._lateness import Lateness
from melt_stream.collectors._monsoon_written import PERIOD_NS, Array, Hole, Written
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

SLACK = 1000
"""So many samples more than the host's clock says may be missing: what the box and the host hold back."""
WHY = {
    LOST: "lost: the box dropped samples, since the host did not read them",
    CALIBRATED: "calibration: the box measured its own zero and reference",
    UNCALIBRATED: "before the first calibrations",
    INVALID: "the box calls the sample invalid",
    DAMAGED: "a damaged packet: as many samples as the one before it had",
}


@dataclass
class Rows:
    """Puts one stretch of sampling in the outlet."""

    out: Outlet
    clock: Clock
    streams: dict[Stream, dict[str, int]]
    """For each stream its columns, and which of the decoder's they are."""
    decoder: Decoder
    _late: Lateness = field(default_factory=lambda: Lateness(PERIOD_NS))
    _written: Written = field(init=False)

    def __post_init__(self) -> None:
        self._written = Written(self.out, self.clock)

    def take(self, block: Block) -> Decoded:
        """Decode a read and write what it gave."""
        behind = self._late.of(self.decoder.next_tick, block.arrival) / PERIOD_NS
        decoded = self.decoder.feed(block.data, max(0, round(behind)) + SLACK)
        holes = [Hole(row, tick, amount, WHY[kind]) for kind, row, tick, amount in decoded.events.tolist()]
        values: dict[Stream, dict[str, Array]] = {
            stream: {name: decoded.values[:, place] for name, place in columns.items()}
            for stream, columns in self.streams.items()
        }
        self._written.block(decoded.tick, values, holes)
        late = self._late.of(decoded.next_tick, block.arrival)
        self._late.saw(decoded.next_tick, block.arrival)
        self._written.arrived(late, decoded.next_tick - 1, block.arrival)
        return decoded

    def close(self) -> None:
        """Write the gap that is still open."""
        self._written.close()

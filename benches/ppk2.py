"""Decoding a PPK2's words, with the loss check: ours beside ppk2lab's own parser and conversion, and numpy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from ppk2lab.calibration import Calibration
from ppk2lab.protocol.metadata import parse_metadata
from ppk2lab.protocol.samples import SampleBlock, SampleStreamParser

from benches.figures import Figure, at_least
from benches.measure import Effort, Work, in_turn, ratios, walls
from melt_stream.collectors import _decode_ppk2 as kernels
from melt_stream.collectors._ppk2_framing import Framing
from melt_stream.collectors._ppk2_metadata import Metadata, parse

Array = np.ndarray[Any, Any]
SAID = "".join(
    f"R{r}: {ohm}\nGS{r}: 0.5\nGI{r}: 0.95\nO{r}: 60\nS{r}: 0\nI{r}: 0\nUG{r}: 1\n"
    for r, ohm in enumerate((1003.0, 101.6, 10.3, 0.96, 0.056))
)
VOLTS = 3.7
BLOCK = 100_000
"""Words at once: a second."""
FEW = 50
"""ppk2lab gets so much less to do: it converts sample by sample."""


def run(effort: Effort) -> Iterator[Figure]:
    """Compare the results, then time all in turn."""
    count = effort.pick(5_000_000, 500_000)
    data = _data(count)
    few = data[: 4 * (count // FEW)]
    check(few)
    metadata = parse(SAID.encode())
    cases: dict[str, Work] = {
        "ours": partial(ours, data, metadata.table(VOLTS)),
        "framing": partial(framed, data, metadata.table(VOLTS)),
        "numpy": partial(with_numpy, data, metadata),
        "ppk2lab": partial(with_ppk2lab, few),
    }
    times = in_turn(cases, effort.rounds)
    rate = {
        name: [(count // FEW if name == "ppk2lab" else count) / t for t in walls(times[name])]
        for name in cases
    }
    yield Figure("loss check and columns, a second at once", rate["ours"], "rows/s", at_least(200e6))
    yield Figure("with framing, in the blocks of a port", rate["framing"], "rows/s")
    yield Figure("numpy, no realignment", rate["numpy"], "rows/s")
    yield Figure("ppk2lab", rate["ppk2lab"], "rows/s")
    yield Figure("ours / numpy", ratios(rate["ours"], rate["numpy"]), "x")
    yield Figure("ours / ppk2lab", ratios(rate["ours"], rate["ppk2lab"]), "x")


def ours(data: bytes, table: Array) -> Array:
    """Check the counters and convert."""
    words = np.frombuffer(data, "<u4")
    amps, ranges = np.empty(len(words), np.float32), np.empty(len(words), np.uint8)
    for start in range(0, len(words), BLOCK):
        part = slice(start, start + BLOCK)
        if kernels.following(words[part], start & 63) != len(words[part]):
            raise ValueError("expected no loss")
        kernels.convert(words[part], table, amps[part], ranges[part])
    return amps


def framed(data: bytes, table: Array) -> int:
    """Do what the collector does, with reads of 4 kB."""
    framing, count = Framing(), 0
    for start in range(0, len(data), 4095):
        for words in framing.feed(data[start : start + 4095]):
            assert isinstance(words, np.ndarray)
            kernels.convert(words, table, np.empty(len(words), np.float32), np.empty(len(words), np.uint8))
            count += len(words)
    return count


def with_numpy(data: bytes, metadata: Metadata) -> Array:
    """What a good user of numpy would write."""
    words = np.frombuffer(data, "<u4")
    if ((np.diff(words >> 18) & 63) != 1).any():
        raise ValueError("expected no loss")
    chosen = np.minimum((words >> 14) & 7, 4)
    m = {name: np.array(values)[chosen] for name, values in metadata.modifiers.items()}
    x = ((words & 0x3FFF) * 4.0 - m["O"]) * (1.8 / 163840) / m["R"]
    amps: Array = m["UG"] * (x * (m["GS"] * x + m["GI"]) + m["S"] * VOLTS + m["I"])
    return amps.astype(np.float32)


def with_ppk2lab(data: bytes) -> list[float]:
    """Its parser, and its conversion of each sample."""
    calibration = Calibration.from_metadata(parse_metadata(SAID + "END\n"))
    parser, amps = SampleStreamParser(), []
    for start in range(0, len(data), 4095):
        for block in parser.feed(data[start : start + 4095]):
            assert isinstance(block, SampleBlock)
            for adc, chosen in zip(block.adc, block.ranges, strict=True):
                known = calibration.ranges[chosen]
                assert known is not None
                amps.append(known.convert(adc, VOLTS * 1000) / 1e6)
    return amps


def check(data: bytes) -> None:
    """Raise where the three do not agree."""
    metadata = parse(SAID.encode())
    mine = ours(data, metadata.table(VOLTS))
    for theirs in (with_numpy(data, metadata), np.array(with_ppk2lab(data))):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def _data(count: int) -> bytes:
    rng = np.random.default_rng(1)
    fields = (
        rng.integers(4000, 4400, count)
        | ((np.arange(count) // 5000 % 5) << 14)
        | ((np.arange(count) & 63) << 18)
    )
    return bytes(fields.astype("<u4").tobytes())

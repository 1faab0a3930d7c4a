"""The emulated UM meters, as a small reader made from the protocol's description alone sees them.

No client of theirs can be installed from PyPI. ``docs/meters.md`` tells what rdserialtool and rd-usb, run once by hand, read.
"""

from __future__ import annotations

import operator
from functools import reduce

import pytest
import serial
import trio

from melt_stream.emulators import Faults, Load
from melt_stream.emulators.um25c import Um25c

VOLTS_AMPS = {"UM24C": (2403, 100, 1000), "UM25C": (2505, 1000, 10_000), "UM34C": (3404, 100, 1000)}


def read(path):
    """Send F0, read 130 bytes: V u16 @2, A u16 @4, W u32 @6, temperature @10, D+ @96, D- @98, mode @100, ohm u32 @122."""
    with serial.Serial(path, 9600, timeout=2) as port:
        port.write(b"\xf0")
        data = port.read(130)
        assert port.read(port.in_waiting) == b""
    assert len(data) == 130
    word = lambda at, size=2: int.from_bytes(data[at : at + size], "big")  # noqa: E731
    return data, word


async def answer(meter):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(meter.play)
        found = await trio.to_thread.run_sync(read, place["port"])
        nursery.cancel_scope.cancel()
    return found


@pytest.mark.parametrize("model", sorted(VOLTS_AMPS))
async def test_the_description_reads_what_the_load_draws(model):
    meter = Um25c(model=model, load=Load.parse("constant:2.5W"), volts=20.0)
    code, per_volt, per_amp = VOLTS_AMPS[model]
    data, word = await answer(meter)
    assert word(0) == code
    assert word(2) / per_volt == pytest.approx(20.0)
    assert word(4) / per_amp == pytest.approx(0.125)
    assert word(6, 4) / 1000 == pytest.approx(2.5)
    assert (word(10), word(12), word(14)) == (31, 88, 2)
    assert (word(96), word(98), word(100)) == (275, 268, 7)
    assert word(122, 4) / 10 == pytest.approx(160.0)
    if model == "UM34C":
        assert data[129] == reduce(operator.xor, (data[at] for at in SUMMED))
    else:
        assert word(128) == 0xFFF1


SUMMED = [
    *(1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57),
    *(59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109, 111, 113, 119, 121, 127),
]
"""As libsigrok's driver has it."""


async def test_the_selected_group_counts_what_flows():
    meter = Um25c(load=Load.parse("constant:100W"), volts=20.0, group=4)
    meter.mah, meter.mwh = 1234.0, 5678.0
    data, word = await answer(meter)
    assert word(14) == 4
    assert (word(16 + 8 * 4, 4), word(16 + 8 * 4 + 4, 4)) == (int(meter.mah), int(meter.mwh))
    assert word(16 + 8 * 4 + 4, 4) >= 5678
    assert data[16 : 16 + 8 * 4] == bytes(8 * 4)


async def test_a_wrong_end_can_be_ordered():
    data, _ = await answer(Um25c(faults=Faults.parse(["checksum@0"], Um25c.own_faults)))
    assert data[-2:] == b"\xff\xb1"

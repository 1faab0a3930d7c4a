"""An independent client, PyPI ppk2lab, takes our PPK2 for a real one."""

import numpy as np
import pytest
import trio
from ppk2lab import PPK2
from ppk2lab.types import GapEvent, Mode

from melt_stream.emulators import Faults, Load
from melt_stream.emulators.ppk2 import Ppk2, step

pytestmark = pytest.mark.realtime

SQUARE = Load.parse("square:100mA,500mA,100ms")


def measure(port, seconds):
    device = PPK2.open(port=port)
    try:
        device.set_mode(Mode.SOURCE)
        device.set_source_voltage_mv(3700)
        device.set_dut_power(True)
        with device.stream(duration_s=seconds) as events:
            return list(events), device.calibration, device.metadata
    finally:
        device.close()


async def with_ppk2lab(emulator, seconds=0.6):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        result = await trio.to_thread.run_sync(measure, place["port"], seconds)
        nursery.cancel_scope.cancel()
    return result


def currents(blocks, calibration):
    """Microamperes, by ppk2lab's own conversion."""
    return np.array([
        calibration.ranges[r].convert(a, 3700) for block in blocks for a, r in zip(block.adc, block.ranges, strict=True)
    ])  # fmt: skip


async def test_ppk2lab_sees_the_load_the_inputs_and_no_gap():
    emulator = Ppk2(load=SQUARE, logic=[(0.0, 0x81)])
    events, calibration, metadata = await with_ppk2lab(emulator)
    assert [event for event in events if isinstance(event, GapEvent)] == []
    assert 60_000 <= sum(map(len, events)) < 60_000 + 2048  # it takes whole reads
    amps = currents(events, calibration) / 1e6
    for level in (0.1, 0.5):
        near = amps[np.abs(amps - level) < 0.1]
        assert abs(near - level).max() <= step(level) / 2 * 1.01
        assert len(near) / len(amps) == pytest.approx(0.5, abs=0.1)
    assert {value for block in events for value in block.logic} == {0x81}
    assert metadata.vdd_mv == 3700
    assert b"\x0d\x0e\x74" in emulator.sent


async def test_ppk2lab_finds_the_samples_that_we_skip():
    emulator = Ppk2(load=SQUARE, faults=Faults.parse(["skip@0.2:17"]))
    events, _, _ = await with_ppk2lab(emulator)
    assert [event.missing for event in events if isinstance(event, GapEvent)] == [17]


async def test_ppk2lab_reads_what_a_device_does_not_know_of_itself():
    emulator = Ppk2(without=["R3"], nan=["GI2"])
    _, _, metadata = await with_ppk2lab(emulator, 0.1)
    assert metadata.missing_cal_ranges() == [2, 3]

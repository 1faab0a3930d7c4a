"""The emulated black Monsoon is what its maker's client, over the real pyusb, takes for the real one."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from melt_stream.clock import monotonic
from melt_stream.emulators import Faults, Load
from melt_stream.emulators.monsoon_hvpm import MonsoonHvpm
from tests.emulators.emulated_usb import EmulatedUsb

pytestmark = pytest.mark.realtime


@pytest.fixture
def client(monkeypatch):
    """PyMonsoon's own classes, whose ``usb.core.find`` looks at emulated boxes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compares strings by identity
        from Monsoon import HVPM, pmapi, sampleEngine

    def connected(box: MonsoonHvpm):
        box.began = monotonic()
        monkeypatch.setattr(pmapi.usb.core, "find", EmulatedUsb(box).find)
        monsoon = HVPM.Monsoon()
        monsoon.setup_usb(Protocol=pmapi.USB_protocol())
        return monsoon, sampleEngine

    return connected


@pytest.mark.parametrize(
    ("load", "milliamps", "step"), [("constant:10mA", 10, 0.002), ("constant:2A", 2000, 0.2)]
)
def test_its_maker_s_client_reads_it(client, load, milliamps, step):
    box = MonsoonHvpm()
    box.load = Load.parse(load)
    monsoon, engine = client(box)
    monsoon.fillStatusPacket()
    assert (monsoon.statusPacket.serialNumber, monsoon.statusPacket.firmwareVersion) == (20123, 32)
    assert (monsoon.statusPacket.mainFineScale, monsoon.statusPacket.mainCoarseZeroOffset) == (36500, -15)
    monsoon.setVout(3.8)
    assert box.volts == pytest.approx(3.8, abs=1e-6)
    monsoon.setRunTimeCurrentLimit(5)
    monsoon.setUSBPassthroughMode(1)
    monsoon.fillStatusPacket()
    assert monsoon.statusPacket.runtimeCurrentLimit == pytest.approx(5, abs=3e-4)
    assert monsoon.statusPacket.usbPassthroughMode == 1
    sampler = engine.SampleEngine(monsoon)
    sampler.ConsoleOutput(False)
    for channel in (engine.channels.USBCurrent, engine.channels.AuxCurrent, engine.channels.USBVoltage):
        sampler.enableChannel(channel)
    sampler.startSampling(5000)
    _, main, usb, aux, volts, usb_volts = sampler.getSamples()
    assert 4990 <= len(main) <= 5000  # in whole batches
    assert np.abs(np.array(main) - milliamps).max() < step
    assert np.abs(np.array(usb) - 250).max() < 0.02
    assert np.abs(np.array(aux) - 40).max() < 0.01
    assert volts == pytest.approx([3.8] * len(main), abs=2e-4)
    assert usb_volts == pytest.approx([5.0] * len(main), abs=1e-4)
    assert not box.sampling


def test_its_maker_s_client_sees_what_it_drops(client):
    box = MonsoonHvpm()
    box.faults = Faults.parse(["skip@0.3:1234"])
    monsoon, _ = client(box)
    monsoon.setVout(4.0)
    monsoon.StartSampling()
    seen = []  # by its own parser, not by its sample engine, whose count is that of the empty rows in its batches
    while len(seen) < 800:
        seen.append(monsoon.swizzlePacket(monsoon.BulkRead())[0])
    monsoon.stopSampling()
    assert sorted(set(seen)) == [0, 1234]
    (played,) = box.faults.done
    assert seen.index(1234) == played.sample // 3


def test_its_maker_s_client_is_refused_a_voltage_by_a_box_that_is_out_of_calibration(client):
    box = MonsoonHvpm()
    box.memory[0x89] = 0xBFFF
    monsoon, _ = client(box)
    with pytest.raises(ValueError, match="dacCalHigh out of tolerance"):
        monsoon.setVout(4.0)

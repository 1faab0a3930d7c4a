"""The emulated Monsoon is what mobly's client, which is not ours, takes for the real one."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
import trio

from melt_stream.emulators import Load
from melt_stream.emulators.monsoon_lvpm import MonsoonLvpm

pytestmark = pytest.mark.realtime


def driven(port: str) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports modules that Python is about to drop
        from mobly.controllers.monsoon import MonsoonProxy
    client = MonsoonProxy(device=port)
    try:
        assert client.GetStatus()["serialNumber"] == 12345
        client.SetVoltage(3.8)
        assert client.GetVoltage() == pytest.approx(3.79)  # it truncates, as the real one's clients do
        assert client.GetStatus()["voltage1"] == pytest.approx(3.79)
        client.SetMaxCurrent(4.0)
        client.SetMaxPowerUpCurrent(2.0)
        client.SetUsbPassthrough(1)
        status = client.GetStatus()
        assert status["runTimeCurrentLimit"] == pytest.approx(4.0, abs=0.01)
        assert status["powerUpCurrentLimit"] == pytest.approx(2.0, abs=0.01)
        assert client.GetUsbPassthrough() == 1
        client.StartDataCollection()
        amps: list[float] = []
        stop = time.monotonic() + 2.0  # noqa: TID251 - the client's own clock
        while time.monotonic() < stop:  # noqa: TID251
            amps += client.CollectData()
        client.StopDataCollection()
        client._FlushInput()
        return amps
    finally:
        client.ser.close()


@pytest.mark.parametrize(("load", "amps"), [("constant:10mA", 0.010), ("constant:1.5A", 1.5)])
async def test_mobly_reads_it(load, amps):
    emulator = MonsoonLvpm()
    emulator.load = Load.parse(load)
    async with trio.open_nursery() as nursery:
        place = await nursery.start(emulator.play)
        got = await trio.to_thread.run_sync(driven, place["port"])
        nursery.cancel_scope.cancel()
    assert len(got) == pytest.approx(10_000, rel=0.1)
    assert np.mean(got) == pytest.approx(amps, abs=1.5e-4 if amps > 1 else 3e-6)
    assert np.std(got) < 1e-6

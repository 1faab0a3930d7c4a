"""An independent client, PyPI tc66-serial, takes our TC66 for a real one."""

from __future__ import annotations

import pytest
import trio
from tc66_serial import Tc66Client
from tc66_serial.exceptions import Tc66ProtocolError

from melt_stream.emulators import Faults, Load
from melt_stream.emulators.tc66 import Tc66


def read(port, times=1):
    with Tc66Client(port, timeout=2.0) as client:
        mode = client.query_mode()
        return mode, [client.get_reading() for _ in range(times)]


async def with_client(meter, call, *args):
    async with trio.open_nursery() as nursery:
        place = await nursery.start(meter.play)
        found = await trio.to_thread.run_sync(call, place["port"], *args)
        nursery.cancel_scope.cancel()
    return found


async def test_tc66_serial_reads_what_the_load_draws():
    meter = Tc66(load=Load.parse("constant:2.5W"), volts=20.0, temperature=-4)
    mode, (reading,) = await with_client(meter, read)
    assert mode == "firm"
    assert reading.is_valid
    assert (reading.product_name, reading.version) == ("TC66", "1.18")
    assert (reading.serial_number, reading.run_count) == (4711, 3)
    assert reading.voltage == pytest.approx(20.0)
    assert reading.current == pytest.approx(0.125)
    assert reading.power == pytest.approx(2.5)
    assert reading.resistance == pytest.approx(160.0)
    assert reading.signed_temperature == -4
    assert (reading.d_plus_voltage, reading.d_minus_voltage) == pytest.approx((0.6, 2.7))
    assert meter.heard == [b"query", b"getva"]


async def test_tc66_serial_sees_its_totals_grow():
    meter = Tc66(load=Load.parse("constant:100000W"), volts=5.0)  # 28 mWh a ms
    _, readings = await with_client(meter, read, 5)
    totals = [reading.group0_mwh for reading in readings]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1] == int(meter.mwh)
    assert readings[-1].group1_mah == int(meter.mah) == pytest.approx(meter.mwh / 5.0, abs=1)


async def test_tc66_serial_refuses_what_is_damaged():
    _, (reading,) = await with_client(Tc66(faults=Faults.parse(["checksum@0"], Tc66.own_faults)), read)
    assert not reading.pac1_checksum_valid
    assert reading.pac2_checksum_valid
    with pytest.RaisesGroup(pytest.RaisesExc(Tc66ProtocolError, match="Unexpected packet headers")):
        await with_client(Tc66(faults=Faults.parse(["key@0"], Tc66.own_faults)), read)

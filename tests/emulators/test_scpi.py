"""The emulated SCPI meter, as pyvisa (which we did not write) sees it."""

from __future__ import annotations

from functools import partial

import pytest
import pyvisa
import trio

from melt_stream.emulators import Faults, Load
from melt_stream.emulators.scpi import Scpi

pytestmark = pytest.mark.realtime

LONG = "MEASURE:SCALAR:CURRENT:DC?"


def ask(resource: str) -> dict[str, object]:
    """What an engineer would type, in a thread."""
    manager = pyvisa.ResourceManager("@py")
    try:
        meter = manager.open_resource(resource, read_termination="\n", write_termination="\n", timeout=5000)
        try:
            meter.write("*CLS")
            meter.write("CONF:CURR:DC 3")
            found: dict[str, object] = {
                "idn": meter.query("*IDN?"),
                "volts": float(meter.query("MEAS:VOLT?")),
                "amps": float(meter.query("meas:curr?")),
                "long": float(meter.query(LONG)),
                "both": [float(one) for one in meter.query("MEAS:VOLT?;:MEAS:CURR?").split(";")],
                "all": meter.query_ascii_values("NUM:NORM:VAL?"),
                "good": meter.query("SYST:ERR?"),
            }
            meter.write("CONF:CURENT 3")
            meter.write("VOLTAGES 3")
            return found | {"errors": [meter.query("SYSTem:ERRor:NEXT?") for _ in range(3)]}
        finally:
            meter.close()
    finally:
        manager.close()


@pytest.mark.parametrize("serial", [False, True], ids=["tcp", "pty"])
async def test_pyvisa_reads_what_the_load_draws(serial):
    meter = Scpi(serial=serial, volts=5.0, load=Load.parse("constant:1.5W"))
    async with trio.open_nursery() as nursery:
        place = await nursery.start(meter.play)
        where = (
            f"ASRL{place['port']}::INSTR"
            if serial
            else f"TCPIP0::{place['host']}::{place['tcp_port']}::SOCKET"
        )
        found = await trio.to_thread.run_sync(partial(ask, where))
        nursery.cancel_scope.cancel()
    assert found == {
        "idn": meter.identity,
        "volts": 5.0,
        "amps": pytest.approx(0.3),
        "long": pytest.approx(0.3),
        "both": pytest.approx([5.0, 0.3]),
        "all": pytest.approx([5.0, 0.3, 1.5]),
        "good": '+0,"No error"',
        "errors": ['-113,"Undefined header"', '-113,"Undefined header"', '+0,"No error"'],
    }
    assert "CONF:CURR:DC 3" in meter.heard


def test_an_error_queue_that_is_full_says_so():
    meter = Scpi()
    for code in range(30):
        meter.push(f'{code},"x"')
    assert len(meter.errors) == 20
    assert meter.errors[-1] == '-350,"Queue overflow"'


def test_its_own_faults_can_be_ordered():
    assert (
        Faults.parse(["error@1:-222", "garble@2", "disconnect@3/2"], Scpi.own_faults).orders[0].amount == -222
    )

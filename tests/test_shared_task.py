"""A phone and a Jetson that share a task: one run, one timeline, the energy of each, through a real adb server and a real sshd."""

from __future__ import annotations

import pytest
import trio

from melt_stream import recipe
from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.emulators import Load
from melt_stream.emulators.jetson import Jetson
from melt_stream.harness.session import record_plan
from tests.emulators.board import board, needed
from tests.emulators.playing_android import WHEELS, playing, serving

pytestmark = [pytest.mark.realtime, needed]


async def test_a_request_has_the_energy_of_both_devices_apart_by_their_boundaries(tmp_path):
    with serving(WHEELS) as server, trio.fail_after(60):
        async with (
            playing(load="constant:2W", ahead_ms=37) as (_, phone),
            board(Jetson(load=Load.parse("constant:20W"))) as orin,
        ):
            said = {
                "device": {
                    "phone": {"adb": phone["serial"], "port": server.port},
                    "orin": {
                        "ssh": f"{orin['user']}@{orin['host']}:{orin['tcp_port']}", "config": [],
                        "identity": orin["identity"], "known_hosts": orin["known_hosts"],
                    },
                },
                "collectors": {
                    "battery": {"device": "phone", "hz": 20.0, "root": phone["root"]},
                    "ina3221": {"device": "orin", "hz": 20.0, "root": orin["root"]},
                },
                "workloads": {
                    "task": {"kind": "command", "arguments": ["sleep", "1"], "device": "phone", "involves": ["orin"]}
                },
            }  # fmt: skip
            plan = recipe.plan(recipe.parse(said, "here"), "here")
            outcome = await trio.to_thread.run_sync(record_plan, plan, tmp_path / "archive")
    assert outcome.ending.error is None
    run = pack(outcome.path)
    with connect([run]) as database:
        devices = dict(database.execute("SELECT device, error FROM devices").fetchall())
        rows = database.execute(
            "SELECT device, joules, joules_u, coverage, boundary, (stop_ns - start_ns) / 1e9 FROM phases WHERE request = 1 ORDER BY device"
        ).fetchall()
        (both,) = database.execute("SELECT devices, boundary, joules, coverage FROM together").fetchall()
        clocks = database.execute(
            "SELECT clock, bound_ns FROM clocks WHERE clock LIKE '%.realtime'"
        ).fetchall()
    assert devices == {"host": None, "phone": None, "orin": None}
    assert [row[0] for row in rows] == ["orin", "phone"]
    for (_, joules, u, coverage, _, seconds), watts in zip(rows, (20.0, 2.0), strict=True):
        assert coverage >= 0.8
        assert joules / coverage == pytest.approx(watts * seconds, rel=0.1, abs=2 * u)
    assert rows[0][4] != rows[1][4]
    assert both[:3] == (["orin", "phone"], None, None)
    assert both[3] == pytest.approx(min(row[3] for row in rows))
    assert all(bound < 50e6 for _, bound in clocks)
    assert {clock for clock, _ in clocks} >= {"phone.realtime", "orin.realtime"}

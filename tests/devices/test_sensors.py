"""The sensors of phones and boards say through a device's loop what they say of the same files here."""

from __future__ import annotations

import shutil

import pytest
import trio

from melt_stream.devices import Local, Sampled
from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.plugins import COLLECTORS, load
from melt_stream.testing import FakeTree, Keep, observe

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
STAMPS = {"tick", "epoch", "t_u", "repeats"}


def first(keep, key):
    """What the rows of the first sample of a stream say."""
    rows = [row for row in keep.rows(key) if row["tick"] == keep.rows(key)[0]["tick"]]
    return [{name: value for name, value in row.items() if name not in STAMPS} for row in rows]


@pytest.mark.parametrize("name", ["gpu", "ina3221", "network", "odpm", "throttle"])
async def test_a_sensor_says_the_same_of_a_devices_files(name, tmp_path):
    cls = load(COLLECTORS, name)
    root = str(FakeTree(tmp_path, cls.example()["tree"]).root)
    there = Keep()

    class Until:
        async def collect(self, out: Outlet) -> None:
            while not any(key.startswith("it.") for key in there.sources):
                await out.flushing()

    with trio.fail_after(60):
        sampled = Sampled(cls(root=root, hz=20), Local(name="board"))
        ending = await record({"it": sampled}, [there], {"until": Until()}, flush_every=0.01)
    assert ending.error is None
    here = await trio.to_thread.run_sync(lambda: observe(cls(root=root, hz=20), seconds=0.2)[0])
    keys = {key for key in here.sources if key.startswith("it.")}
    assert keys == {key for key in there.sources if key.startswith("it.")}
    assert {key: first(there, key) for key in keys} == {key: first(here, key) for key in keys}
    assert {r["name"] for r in there.rows("run.rails")} == {r["name"] for r in here.rows("run.rails")}
    on = {
        reading["against"] for reading in there.rows("run.readings") if reading["clock_of"] == "it.boottime"
    }
    assert on == ({"board.realtime"} if name == "odpm" else set())

"""Every sensor of files says through a device's loop what it says of the same files here; the host's do over a real sshd."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from melt_stream import FileSensor
from melt_stream.collectors.memory import Memory
from melt_stream.devices import Local, Sampled
from melt_stream.engine import record
from melt_stream.outlet import Outlet
from melt_stream.plugins import COLLECTORS, configure, load, names
from melt_stream.testing import FakeTree, Keep, observe
from tests.emulators.board import board, needed, reached

STAMPS = {"tick", "epoch", "t_u", "repeats"}
HOSTS = ("battery", "cpu", "cpufreq", "fan", "hwmon", "memory", "network", "rapl", "thermal")
"""Sensors of any Linux machine."""
PID = {"pid": 42}
"""A device's process is named by its number."""


def sensors():
    found = {name: load(COLLECTORS, name) for name in names(COLLECTORS)}
    return {name: cls for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, FileSensor)}


def made(name, root):
    cls = load(COLLECTORS, name)
    config = PID if name == "memory" else cls.example()["config"]
    return configure(cls, {**config, "root": root, "hz": 20.0}, name)


def first(keep, key):
    """What the rows of the first sample of a stream say."""
    rows = [row for row in keep.rows(key) if row["tick"] == keep.rows(key)[0]["tick"]]
    return [{name: value for name, value in row.items() if name not in STAMPS} for row in rows]


def same(there, here, instance):
    """Whether both say the same: streams, the first sample's rows, rails."""
    keys = {key for key in here.sources if key.startswith("it.")}
    assert {key.replace("it.", f"{instance}.") for key in keys} == {
        key for key in there.sources if key.startswith(f"{instance}.")
    }
    assert {key: first(there, key.replace("it.", f"{instance}.")) for key in keys} == {
        key: first(here, key) for key in keys
    }
    rails = {rail["name"] for rail in there.rows("run.rails") if rail["sensor_of"].startswith(f"{instance}.")}
    assert rails == {rail["name"] for rail in here.rows("run.rails")}


async def here(name, root):
    return (await trio.to_thread.run_sync(lambda: observe(made(name, root), seconds=0.2)))[0]


class Until:
    """A workload that ends when each of these has written something."""

    def __init__(self, keep, instances):
        self.keep, self.instances = keep, instances

    async def collect(self, out: Outlet) -> None:
        while not all(
            any(key.startswith(f"{name}.") for key in self.keep.sources) for name in self.instances
        ):
            await out.flushing()


@pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
@pytest.mark.parametrize("name", sorted(sensors()))
async def test_a_sensor_says_the_same_of_a_devices_files(name, tmp_path):
    root = str(FakeTree(tmp_path, sensors()[name].example()["tree"]).root)
    there = Keep()
    with trio.fail_after(60):
        sampled = Sampled(made(name, root), Local(name="board"))
        ending = await record({"it": sampled}, [there], {"until": Until(there, ["it"])}, flush_every=0.01)
    assert ending.error is None
    same(there, await here(name, root), "it")
    on = {
        reading["against"] for reading in there.rows("run.readings") if reading["clock_of"] == "it.boottime"
    }
    assert on == ({"board.realtime"} if name == "odpm" else set())


@pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
async def test_a_process_that_is_looked_for_by_its_name_is_none_of_a_devices(tmp_path):
    root = str(FakeTree(tmp_path, Memory.example()["tree"]).root)
    sampled = Sampled(Memory(process="llama-server", root=root), Local(name="board"))
    with trio.fail_after(60):
        ending = await record({"it": sampled}, [Keep()], {})
    assert "expected pid = ... of a process on a device, got process = 'llama-server'" in str(ending.error)


@needed
async def test_the_hosts_sensors_run_unchanged_over_a_real_sshd():
    """All at once, over one connection, as another user, on the machine's own clock."""
    there = Keep()
    async with board() as place:
        folder = Path(place["identity"]).parent / "tree"  # which the user there may read
        roots = {name: str(FakeTree(folder / name, sensors()[name].example()["tree"]).root) for name in HOSTS}
        device = reached(place)
        sampled = {name: Sampled(made(name, root), device) for name, root in roots.items()}
        with trio.fail_after(60):
            ending = await record(sampled, [there], {"until": Until(there, HOSTS)}, flush_every=0.01)
        assert ending.error is None
        for name, root in roots.items():
            same(there, await here(name, root), name)
    clocks = {source.clock for key, source in there.sources.items() if not key.startswith("run.")}
    assert clocks == {"orin.realtime"}

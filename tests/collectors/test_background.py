"""A load beside what is measured: it is really there, on this machine or another, and never outlives us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from melt_stream.collectors.background import Background
from melt_stream.devices import Local, Place
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import Recorded, check_nobody_outlives, holders_of, in_thread


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """Commands in front of the system's."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin"


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("there", [False, True])
async def test_it_runs_the_copies_and_ends_them_with_the_run(programs, tmp_path, there):
    """A ``dd`` that says who it is: two of it come, and none is left when the collector has ended."""
    alive, ready, hub = tmp_path / "alive", tmp_path / "ready", Hub()
    os.mkfifo(alive)
    os.mkfifo(ready)
    program(programs / "dd", f'echo "$@" >"{ready}"; exec 9>"{alive}"; exec sleep 600')
    load = Background(memory=2, block_mb=16)
    load = load.on(Place(Local("board"))) if there else load
    scope, out = trio.CancelScope(), hub.outlet("load")

    async def collect() -> None:
        with scope:
            await load.collect(out)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            said = ""
            while said.count("\n") < 2:
                said += await in_thread(ready.read_text)
            async with holders_of(alive) as ended:
                await out.is_ready.wait()
                scope.cancel()
                await ended()
    assert said == f"if=/dev/zero of=/dev/null bs={16 << 20}\n" * 2
    seen = Recorded(hub)
    assert seen.facts == {"load": {"memory": 2}}
    assert [row["name"] for row in seen.events("mark")] == ["background memory"]


async def test_it_does_not_outlive_us(programs, tmp_path):
    alive = tmp_path / "alive"
    program(programs / "dd", f'exec 9>"{alive}"; exec sleep 600')
    script = """
        import trio
        from melt_stream.collectors.background import Background
        from melt_stream.outlet import Hub
        trio.run(Background(memory=1).collect, Hub().outlet("load"))
    """
    await check_nobody_outlives(script, alive=alive)


async def test_a_load_that_ends_by_itself_is_an_error_with_its_last_words(programs):
    program(programs / "dd", "echo no memory here >&2; exit 3")
    with (
        trio.fail_after(30),
        pytest.RaisesGroup(
            pytest.RaisesExc(
                DeviceError,
                match=r"host: expected the load 'memory' to go on, .* exit status 3: no memory here",
            )
        ),
    ):
        await Background(memory=1).collect(Hub().outlet("load"))


async def test_cpu_spins_in_so_many_processes(programs, tmp_path):
    """A shell that says so where it is asked to spin, and is the system's for all else."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    spin = f'echo "$2" >"{ready}"; exec /bin/sh "$@"'
    program(programs / "sh", f'case "$2" in "while :;"*) {spin};; *) exec /bin/sh "$@";; esac')
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Background(cpu=2).collect, Hub().outlet("load"))
            said = ""
            while said.count("\n") < 2:
                said += await in_thread(ready.read_text)
            nursery.cancel_scope.cancel()
    assert said == "while :; do :; done\n" * 2


async def test_the_network_is_sent_to_as_fast_as_it_takes_it():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port, got = listeners[0].socket.getsockname()[1], trio.Event()

    async def take(line: trio.SocketStream) -> None:
        taken = 0
        async for data in line:
            taken += len(data)
            if taken > 10_000_000:
                got.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, take, listeners)
            nursery.start_soon(Background(network=f"127.0.0.1:{port}").collect, Hub().outlet("load"))
            await got.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"network": "nowhere"}, "expected HOST:PORT, got 'nowhere'"),
        ({"network": "h:p"}, "got 'h:p'"),
    ],
)
def test_an_address_that_is_none_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        Background(**fields)


async def test_no_load_is_a_point_of_an_axis_like_any_other():
    hub = Hub()
    out = hub.outlet("load")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Background().collect, out)
            await out.is_ready.wait()
            nursery.cancel_scope.cancel()
    assert Recorded(hub).facts == {"load": {}}
    assert Background().check().ok


def test_a_machine_without_dd_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert not Background(memory=1).check().ok
    assert Background(memory=1).on(Place(Local("board"))).check().ok
    assert Background(cpu=2).check().ok

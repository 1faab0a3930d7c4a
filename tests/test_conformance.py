"""Every installed collector, workload, importer and sink keeps its contract, on its own example."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from melt_stream import plugins
from melt_stream.collector import Health
from melt_stream.engine import record
from melt_stream.errors import MeltError
from melt_stream.outlet import Outlet
from melt_stream.sensor import FileSensor
from melt_stream.sink import Batch
from melt_stream.stream import Stream
from melt_stream.testing import FakeTree, Keep, check_collector, check_sink, made_from_example, observe
from melt_stream.units import W

METER = Stream("meter", watts=W)
SLOW = {"llama": (pytest.mark.model, pytest.mark.slow)}


def installed(*groups: str) -> list[Any]:
    found = [(group, name) for group in groups for name in plugins.names(group)]
    return [pytest.param(group, name, id=name, marks=SLOW.get(name, ())) for group, name in found]


sources = pytest.mark.parametrize(("group", "name"), installed(plugins.COLLECTORS, plugins.WORKLOADS))


@sources
async def test_a_source_keeps_the_contract(group, name, tmp_path):
    async with made_from_example(plugins.load(group, name), tmp_path) as source:
        if hasattr(source, "check"):
            health = source.check()
            assert isinstance(health, Health)
            assert health.ok, f"expected the example to be available, got {health}"
        await check_collector(source)


@pytest.mark.parametrize("name", sorted(plugins.names("melt_stream.importers")))
async def test_an_importer_keeps_the_contract(name, tmp_path):
    async with made_from_example(plugins.load("melt_stream.importers", name), tmp_path) as importer:
        await check_collector(importer, declares=False)


@pytest.mark.parametrize(("group", "name"), installed(plugins.SINKS))
async def test_a_sink_keeps_the_contract(group, name):
    cls = plugins.load(group, name)
    await check_sink(lambda: plugins.configure(cls, cls.example().get("config", {}), name))


def file_sensors() -> list[tuple[str, Any]]:
    found = ((name, plugins.load(plugins.COLLECTORS, name)) for name in plugins.names(plugins.COLLECTORS))
    return [(name, cls) for name, cls in found if isinstance(cls, type) and issubclass(cls, FileSensor)]


@pytest.mark.parametrize(("name", "cls"), [pytest.param(*found, id=found[0]) for found in file_sensors()])
@pytest.mark.parametrize("harm", ["unreadable", "gone", "empty", "junk"])
def test_whatever_happens_to_one_file_a_sensor_goes_on_or_says_why(name, cls, harm, tmp_path):
    example = cls.example()
    for number, path in enumerate(example["tree"]):
        tree = FakeTree(tmp_path / str(number), example["tree"])
        sensor = plugins.configure(cls, example["config"] | {"root": str(tree.root)}, name)
        _harm(tree, path, harm)
        _, ending = observe(sensor, seconds=1)
        assert ending.error is None or isinstance(ending.error, MeltError), (
            f"{name}: {path} is {harm}: expected rows, or an error of ours, got {ending.error!r}"
        )


def _harm(tree: FakeTree, path: str, harm: str) -> None:
    match harm:
        case "unreadable":
            tree.make_unreadable(path)
        case "gone":
            tree.vanish(path)
        case "empty":
            tree.write(path, "")
        case _:
            tree.write(path, "<unknown>\n\N{REPLACEMENT CHARACTER} -nan 12 34")


@pytest.mark.parametrize(("name", "cls"), [pytest.param(*found, id=found[0]) for found in file_sensors()])
def test_a_sensor_whose_tree_vanishes_leaves_a_gap(name, cls, tmp_path):
    example = cls.example()
    tree = FakeTree(tmp_path / "root", example["tree"])
    sensor = plugins.configure(cls, example["config"] | {"root": str(tree.root)}, name)

    class Vanish:
        async def collect(self, _: Outlet) -> None:
            await trio.sleep(5)
            tree.vanish()
            await trio.sleep(5)

    keep = Keep()
    run = partial(
        record, {"it": sensor}, [keep], {"vanish": Vanish()}, now=lambda: round(trio.current_time() * 1e9)
    )
    ending = trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert ending.reason == "workloads ended"
    assert {gap["instance_of"] for gap in keep.rows("run.gaps")} == {"it"}


@dataclass
class Bad:
    """A collector with one fault; each must be found."""

    fault: str

    async def collect(self, out: Outlet) -> None:
        for tick in (2, 1 if self.fault == "time" else 3):
            out.row(Stream("hidden", watts=W) if self.fault == "hidden" else METER, tick=tick)
        if self.fault == "descriptor":
            self.leak = open("/dev/null")  # noqa: ASYNC230, SIM115, PTH123
        if self.fault == "task":
            trio.lowlevel.spawn_system_task(trio.sleep, 60)
        if self.fault == "hangs":
            with trio.CancelScope(shield=True):
                await trio.sleep(0.3)
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("time", "times that never decrease in it.meter, got a step of -1 ticks"),
        ("hidden", "expected it.hidden among the streams it declares"),
        ("descriptor", "expected no descriptor of its own"),
        ("task", "tasks after its end"),
        ("hangs", "expected Bad.* to end within 0.05 s of being cancelled"),
    ],
)
async def test_the_check_of_collectors_finds_each_fault(fault, said, monkeypatch):
    monkeypatch.setattr("melt_stream.testing.leaks.GRACE_S", 0.1)
    bad = Bad(fault)
    with pytest.raises(AssertionError, match=said):
        await check_collector(bad, deadline=0.05 if fault == "hangs" else 2)
    if fault == "descriptor":
        bad.leak.close()


class Quits:
    """A sink that does not wait for its end."""

    async def consume(self, batches: AsyncIterator[list[Batch]]) -> None:
        async for _ in batches:
            return


async def test_the_check_of_sinks_finds_one_that_quits():
    with pytest.raises(AssertionError, match="got an early return"):
        await check_sink(Quits)


async def test_a_sink_that_keeps_all_is_given_all():
    keep = await check_sink(Keep)
    assert keep.ended
    assert len(keep.rows("two.samples")) == 2000
    assert np.diff(keep.column("two.samples", "epoch")[:1000]).sum() == 1


async def test_an_example_of_an_unknown_kind_is_refused(tmp_path: Path):
    class Odd:
        @staticmethod
        def example() -> dict[str, Any]:
            return {"kind": "telepathy"}

    with pytest.raises(ValueError, match="got 'telepathy'"):
        async with made_from_example(Odd, tmp_path):
            pass

"""What holds for every collector of this machine: its example runs, whatever of it is missing or unreadable."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from melt_stream.errors import DeviceError
from melt_stream.plugins import COLLECTORS, configure, load
from melt_stream.sensor import FileSensor
from tests.collectors.host_tree import collect, plant, spoil

NAMES = [
    "battery", "cpu", "cpu_estimate", "cpufreq", "fan", "gpu", "hwmon", "ina238", "ina3221", "memory", "network", "nvml", "odpm", "rapl", "thermal", "throttle",
]  # fmt: skip
FROM_FILES = [name for name in NAMES if name != "nvml"]
ON_THE_HOSTS_CLOCK = [name for name in FROM_FILES if name != "odpm"]


def example(name, root):
    cls = load(COLLECTORS, name)
    plan = cls.example()
    config = {**plan["config"], **({"root": plant(root, plan["tree"])} if plan["kind"] == "files" else {})}
    return configure(cls, config, name), plan.get("tree", {})


@pytest.mark.parametrize("name", NAMES)
async def test_the_example_measures_and_doctor_agrees(name, tmp_path, autojump_clock):
    collector, _ = example(name, tmp_path)
    assert collector.check().ok
    rows = await collect(collector, 2.5)
    assert not rows["run.gaps"]
    declared = {rail["sensor_of"] for rail in rows["run.rails"]}
    assert declared <= {f"x.{stream.name}" for stream, _ in collector.rails()}
    assert any(key.startswith("x.") for key in rows)


@pytest.mark.parametrize("name", NAMES)
async def test_the_document_names_every_stream_column_and_field(name, tmp_path, autojump_clock):
    collector, _ = example(name, tmp_path)
    sections = (Path(__file__).parents[2] / "docs/collectors.md").read_text().split("\n## ")
    (text,) = [section for section in sections if section.startswith(f"`{name}`\n")]
    shared = {field.name for field in fields(FileSensor)}
    words = {field.name for field in fields(collector) if field.init and field.name not in shared}
    for key, rows in (await collect(collector, 2.5)).items():
        if key.startswith("x."):
            words |= {key.removeprefix("x."), *rows[0]} - {"tick", "t_u"}
    assert [word for word in sorted(words) if f"`{word}" not in text] == []
    parts = ["Reads", "Streams", "Rate", "Accuracy", "Quirks", "Verified"]
    assert re.findall(r"^\* \*\*(\w+)\*\*", text, re.MULTILINE) == parts
    assert f"{collector.hz:g} Hz by default" in text


@pytest.mark.parametrize("name", FROM_FILES)
async def test_any_one_unreadable_file_is_survived_or_named(name, tmp_path, autojump_clock):
    """Each file of the example in turn: rows go on, or the error says which file."""
    for i, victim in enumerate(load(COLLECTORS, name).example()["tree"]):
        root = tmp_path / str(i)
        collector, _ = example(name, root)
        spoil(root, victim)
        collector.check()
        try:
            assert await collect(collector, 1.0), victim
        except (DeviceError, ExceptionGroup) as exc:
            text = "".join(map(str, getattr(exc, "exceptions", [exc])))
            assert Path(victim).name in text or Path(victim).parent.name in text, victim


@pytest.mark.parametrize("name", ON_THE_HOSTS_CLOCK)
async def test_everything_vanishes_and_comes_back(name, tmp_path, autojump_clock):
    collector, tree = example(name, tmp_path)

    def vanish():
        for path in tree:
            (tmp_path / path).unlink()

    rows = await collect(collector, 6, {2.05: vanish, 4.05: lambda: plant(tmp_path, tree)})
    assert rows["run.gaps"]
    for gap in rows["run.gaps"]:
        assert gap["start"] <= 2.05e9
        assert gap["stop"] >= 4e9
    for key in rows:
        if key.startswith("x."):
            assert not [row for row in rows[key] if 2.06e9 < row["tick"] < 4.0e9]
            assert max(row["tick"] for row in rows[key]) > 4.0e9


@pytest.mark.parametrize("name", FROM_FILES)
async def test_nothing_there_is_an_error_that_says_what_doctor_says(name, tmp_path, autojump_clock):
    collector = configure(load(COLLECTORS, name), {"root": str(tmp_path)}, name)
    health = collector.check()
    assert not health.ok
    assert health.cure
    with pytest.raises(DeviceError) as raised:
        collector.read()
    assert health.what in str(raised.value)

"""GPUs of SoCs: each family's files, the words that drivers write in them, and what cannot be read."""

from __future__ import annotations

import pytest

from melt_stream.collectors.gpu import KGSL, MALI, Gpu, busy_of_total, hertz, percent, permille
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant, spoil

FREQ = "sys/class/devfreq"


def read(tmp_path, tree):
    return {row.pop("gpu"): tuple(row.values()) for row in Gpu(root=plant(tmp_path, tree)).read()}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (Gpu.example()["tree"], {"tegra": (87.0, 930.75e6), "emc": (25.0, 3199e6)}),
        (
            {"sys/devices/gpu.0/load": "0", f"{FREQ}/57000000.gpu/cur_freq": "76800000"},
            {"tegra": (0.0, 76.8e6)},
        ),
        ({"sys/devices/17000000.ga10b/load": "1000"}, {"tegra": (100.0, None)}),
        ({f"{KGSL}/gpu_busy_percentage": "12 %\n", f"{KGSL}/gpuclk": "257000000"}, {"adreno": (12.0, 257e6)}),
        (
            {f"{KGSL}/gpubusy": " 250000 1000000\n", f"{KGSL}/devfreq/cur_freq": "305000000"},
            {"adreno": (25.0, 305e6)},
        ),
        ({f"{MALI}/utilization": "42", f"{MALI}/clock": "848"}, {"mali": (42.0, 848e6)}),
        ({f"{MALI}/utilization": "42", f"{MALI}/cur_freq": "848000"}, {"mali": (42.0, 848e6)}),
        (
            {
                "sys/devices/platform/1c500000.mali/utilization": "9",
                "sys/devices/platform/1c500000.mali/cur_freq": "302000",
            },
            {"mali": (9.0, 302e6)},
        ),
        ({f"{KGSL}/gpu_busy_percentage": "12 %", f"{KGSL}/clock_mhz": "680"}, {"adreno": (12.0, 680e6)}),
        ({"sys/kernel/gpu/gpu_busy": "7%", "sys/kernel/gpu/gpu_clock": "702"}, {"mali": (7.0, 702e6)}),
        ({f"{FREQ}/ff9a0000.gpu/load": "31@800000000Hz"}, {"mali": (31.0, None)}),
        ({"sys/kernel/debug/bpmp/debug/clk/emc/rate": "204000000"}, {"emc": (None, 204e6)}),
        (
            {f"{FREQ}/gpu-gpc-0/cur_freq": "1575000000", f"{FREQ}/bwmgr/cur_freq": "4266000000"},
            {"tegra": (None, 1575e6), "emc": (None, 4266e6)},
        ),
    ],
)
def test_each_familys_files(tmp_path, tree, expected):
    assert read(tmp_path, tree) == expected
    assert Gpu(root=str(tmp_path)).check().ok


@pytest.mark.parametrize(
    ("meaning", "word"),
    [
        (percent, ""), (percent, "121"), (percent, "-1"), (percent, "12 34"), (percent, "n/a"), (permille, "1001"),
        (permille, "nan"), (busy_of_total, "0 0"), (busy_of_total, "5 4"), (busy_of_total, "5"), (hertz, "1e9"),
    ],
)  # fmt: skip
def test_words_that_say_nothing(meaning, word):
    assert meaning(word) is None


def test_the_next_best_file_counts_where_the_best_is_denied(tmp_path):
    root = plant(tmp_path, {f"{KGSL}/gpu_busy_percentage": "12 %", f"{KGSL}/gpubusy": "1 2"})
    spoil(root, f"{KGSL}/gpu_busy_percentage")
    assert Gpu(root=root).read() == [{"gpu": "adreno", "load": 50.0, "frequency": None}]


def test_an_idle_memory_controllers_few_kilohertz_are_no_megahertz(tmp_path):
    tree = {
        "sys/kernel/debug/bpmp/debug/clk/emc/rate": "204000000",
        "sys/kernel/debug/cactmon/mc_all": "2040",
    }
    assert read(tmp_path, tree) == {"emc": (1.0, 204e6)}


def test_nothing_but_activity_is_no_load(tmp_path):
    with pytest.raises(DeviceError, match="expected a load or a frequency"):
        read(tmp_path, {"sys/kernel/debug/cactmon/mc_all": "799750"})
    health = Gpu(root=str(tmp_path)).check()
    assert (health.ok, health.what) == (False, "no load or frequency can be read: they hold no number")


async def test_a_file_that_goes_costs_its_own_value_and_all_of_them_are_a_gap(tmp_path, autojump_clock):
    tree = {f"{MALI}/utilization": "42", f"{MALI}/clock": "848"}
    root = plant(tmp_path, tree)
    acts = {
        1.05: lambda: plant(tmp_path, {f"{MALI}/utilization": ""}),
        2.05: lambda: plant(tmp_path, {f"{MALI}/clock": ""}),
        3.05: lambda: plant(tmp_path, tree),
    }
    rows = await collect(Gpu(root=root), 4, acts)
    seen = [(row["load"], row["frequency"]) for row in rows["x.soc_gpu"]]
    assert [seen.count(pair) for pair in ((42.0, 848e6), (None, 848e6))] == [20, 10]
    (gap,) = rows["run.gaps"]
    assert gap["lost_rows"] == 10
    plant(tmp_path, {f"{MALI}/clock": "", f"{MALI}/utilization": ""})
    sensor = Gpu(root=root)
    with pytest.raises(DeviceError):
        sensor.read()

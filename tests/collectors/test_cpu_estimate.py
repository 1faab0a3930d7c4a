import pytest

from melt_stream.collectors.cpu_estimate import CpuEstimate
from tests.collectors.host_tree import collect, plant, rails

BEFORE = "cpu0 100 0 0 900 0 0 0 0 0 0\ncpu1 0 0 0 1000 0 0 0 0 0 0"
AFTER = "cpu0 110 0 0 900 0 0 0 0 0 0\ncpu1 5 0 0 1002 2 0 0 1 0 0"  # one core busy, one half; waiting is not work


def test_watts_are_idle_and_busy_cores(tmp_path):
    model = CpuEstimate(idle_watts=2.0, core_watts=8.0, root=plant(tmp_path, {"proc/stat": BEFORE}))
    assert model.read() == {"watts": None}
    plant(tmp_path, {"proc/stat": AFTER})
    assert model.read() == {"watts": pytest.approx(2.0 + 8.0 * 1.5)}


def test_the_defaults_are_the_documented_ones(tmp_path):
    model = CpuEstimate(root=plant(tmp_path, {"proc/stat": BEFORE}))
    model.read()
    plant(tmp_path, {"proc/stat": AFTER})
    assert model.read() == {"watts": pytest.approx(2 * 0.74 + 1.5 * (3.5 - 0.74))}


async def test_its_rail_says_estimated_and_how_badly(tmp_path, autojump_clock):
    root = plant(tmp_path, {"proc/stat": BEFORE})
    rows = await collect(
        CpuEstimate(core_watts=8.0, root=root), 1, {0.5: lambda: plant(tmp_path, {"proc/stat": AFTER})}
    )
    rail = rails(rows)["cpu"]
    assert (rail["estimated"], rail["instrument"], rail["kind"], rail["window_ns"]) == (
        True,
        "model",
        "mean",
        None,
    )
    assert rail["gain"] == 0.5
    assert rail["resolution"] == pytest.approx(0.8)  # 10 ms of one core in 100 ms
    known = [row["watts"] for row in rows["x.power"] if row["watts"] is not None]
    assert known == pytest.approx([0.74 * 2 + 12.0])


def test_what_the_kernel_has_not_counted_is_unknown_and_the_next_sample_covers_it(tmp_path):
    model = CpuEstimate(idle_watts=0.0, core_watts=1.0, root=plant(tmp_path, {"proc/stat": BEFORE}))
    model.read()
    assert model.read() == {"watts": None}
    plant(tmp_path, {"proc/stat": AFTER})
    assert model.read() == {"watts": pytest.approx(1.5)}
    assert model.read() == {"watts": None}


def test_doctor_says_that_it_is_no_sensor():
    assert CpuEstimate().check().ok
    assert "estimated" in CpuEstimate().check().what

import time

import pytest

from melt_stream.collectors.cpu import Cpu
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant

BEFORE = "cpu  0 0 0 0\ncpu0 100 0 50 800 50 0 0 0 0 0\ncpu1 10 0 0 990 0 0 0 0 0 0\nintr 5 0"


def read(cpu):
    return {row["cpu"]: row for row in cpu.read()}


def test_shares_are_of_the_time_between_two_reads(tmp_path):
    cpu = Cpu(root=plant(tmp_path, {"proc/stat": BEFORE}))
    first = read(cpu)
    assert first == {
        0: {"cpu": 0, "busy_time": 150, "iowait_time": 50, "steal_time": 0, "total_time": 1000},
        1: {"cpu": 1, "busy_time": 10, "iowait_time": 0, "steal_time": 0, "total_time": 1000},
    }
    # of 10 jiffies: 2 user (1 of them a guest's, counted in user), 1 nice, 1 system, 1 irq, 1 softirq; 1 iowait, 1 steal
    plant(tmp_path, {"proc/stat": "cpu0 102 1 51 802 51 1 1 1 1 0\ncpu1 10 0 0 1000 0 0 0 0 0 0"})
    core0, core1 = read(cpu).values()
    assert [core0[k] for k in ("busy", "iowait", "steal")] == pytest.approx([0.6, 0.1, 0.1])
    assert [core1[k] for k in ("busy", "iowait", "steal")] == [0, 0, 0]


def test_no_jiffy_passed_is_unknown_not_idle(tmp_path):
    cpu = Cpu(root=plant(tmp_path, {"proc/stat": BEFORE}))
    read(cpu)
    assert "busy" not in read(cpu)[0]


def test_a_core_may_go_offline_and_come_back_and_iowait_may_step_back(tmp_path):
    cpu = Cpu(root=plant(tmp_path, {"proc/stat": BEFORE}))
    read(cpu)
    plant(tmp_path, {"proc/stat": "cpu0 110 0 50 801 49 0 0 0 0 0"})
    alone = read(cpu)
    assert list(alone) == [0]
    assert alone[0]["iowait"] == 0
    assert alone[0]["busy"] == 1.0
    plant(tmp_path, {"proc/stat": BEFORE})
    assert "busy" not in read(cpu)[1]


def test_old_kernels_have_fewer_columns(tmp_path):
    cpu = Cpu(root=plant(tmp_path, {"proc/stat": "cpu0 1 2 3 4"}))
    assert read(cpu)[0]["total_time"] == 10


def test_something_else_in_its_place_is_an_error_that_shows_it(tmp_path):
    cpu = Cpu(root=plant(tmp_path, {"proc/stat": "hello"}))
    with pytest.raises(DeviceError, match=r"expected lines cpu0, cpu1, .*got 'hello'"):
        read(cpu)


def test_this_machines_own_counts_grow_while_it_works():
    cpu = Cpu()
    before = read(cpu)
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    after = read(cpu)
    assert sum(after[c]["busy_time"] - before[c]["busy_time"] for c in after if c in before) >= 15
    assert all(0 <= row["busy"] <= 1 for row in after.values() if "busy" in row)


async def test_counts_are_stored_whole_and_a_vanished_file_is_a_gap(tmp_path, autojump_clock):
    root = plant(tmp_path, {"proc/stat": BEFORE})
    path = tmp_path / "proc/stat"
    rows = await collect(
        Cpu(root=root), 3, {1.05: path.unlink, 2.05: lambda: plant(tmp_path, {"proc/stat": BEFORE})}
    )
    assert {type(row["total_time"]) for row in rows["x.cpu"]} == {int}
    (gap,) = rows["run.gaps"]
    assert (gap["start"], gap["stop"]) == pytest.approx((1.0e9, 2.1e9), abs=0.11e9)
    assert "proc/stat" in gap["reason"]
    assert gap["lost_rows"] == pytest.approx(10, abs=1)

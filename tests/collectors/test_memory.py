import os
from pathlib import Path

import pytest

from melt_stream.collectors.memory import PROCESS, Memory
from melt_stream.errors import DeviceError
from tests.collectors.host_tree import collect, plant, spoil

MEMINFO = (
    "MemTotal:  8000 kB\nMemFree:  4000 kB\nMemAvailable:  6000 kB\nHugePages_Total:  0\nCached:  1500 kB"
)
ROLLUP = (
    "5581-7ffd ---p 00000000 00:00 0  [rollup]\nRss:  900 kB\nPss:  700 kB\nPss_Anon:  5 kB\n"
    "Private_Clean:  100 kB\nPrivate_Dirty:  200 kB\nSwap:  0 kB"
)
SERVER = {"proc/42/comm": "llama-server", "proc/42/smaps_rollup": ROLLUP}


def processes(rows):
    return [row for stream, row in (r for r in rows if isinstance(r, tuple)) if stream is PROCESS]


def test_meminfo_in_bytes_and_what_is_not_there_stays_unknown(tmp_path):
    (row,) = Memory(root=plant(tmp_path, {"proc/meminfo": MEMINFO})).read()
    assert row == {"total": 8_192_000, "free": 4_096_000, "available": 6_144_000, "cached": 1_536_000}


def test_a_processs_rollup_by_pid_and_by_name(tmp_path):
    root = plant(
        tmp_path, {"proc/meminfo": MEMINFO, **SERVER, "proc/7/comm": "bash", "proc/7/smaps_rollup": ROLLUP}
    )
    expected = [{"pid": 42, "rss": 921_600, "pss": 716_800, "uss": 307_200, "swap": 0}]
    assert processes(Memory(pid=42, root=root).read()) == expected
    assert processes(Memory(process="llama-server", root=root).read()) == expected


def test_a_long_name_is_cut_as_the_kernel_cuts_it(tmp_path):
    root = plant(tmp_path, {"proc/meminfo": MEMINFO, **SERVER, "proc/42/comm": "a-very-long-ser"})
    assert processes(Memory(process="a-very-long-server-name", root=root).read())


async def test_a_process_that_starts_later_and_one_that_ends(tmp_path, autojump_clock):
    root = plant(tmp_path, {"proc/meminfo": MEMINFO})
    rows = await collect(
        Memory(process="llama-server", hz=2, root=root),
        12,
        {3.1: lambda: plant(tmp_path, SERVER), 8.1: lambda: Path(root, "proc/42/smaps_rollup").unlink()},
    )
    assert len(rows["x.memory"]) == 24
    seen = [row["tick"] / 1e9 for row in rows["x.process"]]
    assert min(seen) == 4.0  # looked for once a second
    assert max(seen) == 8.0
    assert not rows["run.gaps"]


def test_doctor_says_why_a_process_cannot_be_read(tmp_path):
    root = plant(tmp_path, {"proc/meminfo": MEMINFO, **SERVER})
    assert "no process is called 'ollama' yet" in Memory(process="ollama", root=root).check().what
    spoil(root, "proc/42/smaps_rollup")
    health = Memory(pid=42, root=root).check()
    assert not health.ok
    assert "42/smaps_rollup" in health.what
    assert "root" in health.cure
    assert processes(Memory(pid=42, root=root).read()) == []


def test_something_else_in_its_place_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="expected lines such as"):
        Memory(root=plant(tmp_path, {"proc/meminfo": "nothing here"})).read()


def test_this_process_on_this_machine():
    (mine,) = processes(Memory(pid=os.getpid()).read())
    assert 1e6 < mine["uss"] <= mine["pss"] <= mine["rss"] < 64e9

"""A process's memory by the shell of a device: its text, restarts, reused numbers, OOM kills, and real processes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._process_memory import LOOK, Process, Seen, changes, seen
from melt_stream.collectors.process_memory import ProcessMemory
from melt_stream.devices import Local, Place
from melt_stream.errors import ConfigError
from tests.collectors.collecting import collecting

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="expected bash")
SHELLS = [shell for shell in ("bash", "mksh") if shutil.which(shell)]
STAT = "42 (llama) server) S 1 42 42 0 -1 4194304 1 0 0 0 5 3 0 0 20 0 9 0 777 1 2"
TOLD = f"""process 42
stat {STAT}
status Name:	llama-server
status VmHWM:	    1200 kB
status VmRSS:	    1000 kB
status VmSwap:	       8 kB
rollup Rss:                900 kB
rollup Pss:                700 kB
rollup Private_Clean:      100 kB
rollup Private_Dirty:      200 kB
rollup Swap:                 4 kB
oom_kill 3
all told
"""


def test_what_the_kernel_sums_up_in_bytes():
    assert seen(TOLD) == Seen(
        [Process(42, "llama) server", 777, 921_600, 716_800, 307_200, 4096, 1_228_800)], oom_kills=3
    )


def test_without_a_rollup_there_is_what_the_status_says():
    lines = "\n".join(line for line in TOLD.splitlines() if not line.startswith("rollup"))
    (process,) = seen(lines).processes
    assert (process.rss, process.swap, process.peak) == (1_024_000, 8192, 1_228_800)
    assert (process.pss, process.uss) == (None, None)


def test_a_process_that_went_while_it_was_read_is_none_and_a_look_that_was_cut_is_no_look():
    assert seen("process 42\nprocess 43\nall told") == Seen([])
    assert seen(TOLD.replace(") S ", ") Z ")).processes == []
    assert seen(TOLD.removesuffix("all told\n")) is None


@given(st.text(max_size=200))
def test_no_text_does_harm(text):
    seen(text)
    seen(f"process 42\nstat {text}\nstatus {text}\nrollup {text}\nall told")


def test_comings_and_goings_a_number_used_again_and_kills():
    one, again, other = Process(7, "a", 100), Process(7, "a", 200), Process(8, "b", 150)
    assert changes(Seen([one, other], 1), Seen([one, other], 1)) == []
    (gone, came) = changes(Seen([one], 1), Seen([again], 2))
    assert (gone.came, gone.process, gone.oom_kills) == (False, one, 1)
    assert gone.words == "process 7 (a) is gone; kernel's OOM kills meanwhile: 1"
    assert (came.came, came.process) == (True, again)
    (gone,) = changes(Seen([other]), Seen([], 5))
    assert "meanwhile: unknown" in gone.words


@pytest.mark.parametrize("config", [{}, {"process": "x", "pid": 5}])
def test_a_name_or_a_number(config):
    with pytest.raises(ConfigError, match="expected process or pid"):
        ProcessMemory(**config).prepare()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_finds_a_process_by_its_name_its_path_and_its_number(shell):
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()  # it is up, and grows no more

        def look(*how):
            done = subprocess.run(
                [shell, "-c", LOOK, "look", *how], capture_output=True, text=True, check=True
            )
            return {one.pid: one for one in seen(done.stdout).processes}

        try:
            name = sys.executable.rpartition("/")[2]
            for how in (
                ("name", name[:15], name),
                ("name", "no such", sys.executable),
                ("pid", "", str(process.pid)),
            ):
                found = look(*how)[process.pid]
                assert 1e6 < found.uss <= found.pss <= found.rss
                assert found.peak >= found.rss * 0.9
            assert look("name", "no such", "no such") == {}
        finally:
            process.kill()


def sleeping():
    return subprocess.Popen(["it-sleeps", "1000"], executable=shutil.which("sleep"))


async def test_a_restart_is_two_marks():
    collector = ProcessMemory(process="it-sleeps").on(Place(Local("board")))
    with sleeping() as first:
        async with collecting(collector) as keep:
            await keep.until(lambda: keep.of("process"))
            first.kill()
            first.wait()
            await keep.until(lambda: any("gone" in row["name"] for row in keep.of("process_events")))
            with sleeping() as second:
                await keep.until(lambda: any(row["pid"] == second.pid for row in keep.of("process")))
                second.kill()
    said = [row["name"] for row in keep.of("process_events")]
    assert said[:2] == [
        f"process {first.pid} (sleep) is there",
        f"process {first.pid} (sleep) is gone; kernel's OOM kills meanwhile: 0",
    ]
    assert said[2].startswith(f"process {second.pid} (sleep) is there")
    assert {row["clock_of"] for row in keep.rows("run.readings")} >= {"board.realtime"}

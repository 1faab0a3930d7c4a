"""Proofs by force: processes are killed, disks fill up, folders vanish; no row is lost that was written, none invented."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import trio

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.errors import ConfigError, MeltError
from melt_stream.run import Run, create
from melt_stream.sink import Batch, Source
from melt_stream.sinks.journal import DiskLow, Journal, JournalError
from melt_stream.stream import Stream
from melt_stream.units import W
from tests.recorded import record

KILLS = 50


class Forker:
    """Tells ``tests/forked.py`` what to do, and kills what it does."""

    def __init__(self, warm: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(warm)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        assert self._answer() == "ready"

    def start(self, *words: object) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def status(self) -> int:
        """Wait for the child; until then its pid is its own, even if it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def forker(tmp_path) -> Iterator[Forker]:
    made = Forker(record(tmp_path / "warm").path)
    yield made
    made.close()


def wait_for(happened, seconds: float = 30) -> None:
    """Poll: another process cannot set an event of ours."""
    for _ in range(int(seconds / 0.002)):
        if happened():
            return
        threading.Event().wait(0.002)
    raise AssertionError("it never happened")


def told(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little") if path.exists() else 0


def check_counted(table: pa.Table) -> None:
    n = np.arange(len(table))
    assert (table["tick"].to_numpy() == n).all()
    assert (table["watts"].to_numpy() == n / 2).all()
    assert (table["square"].to_numpy() == n * n).all()
    assert table["name"].to_pylist() == [str(k) for k in range(len(table))]


def test_a_recording_killed_at_any_moment_keeps_what_was_written(tmp_path, forker):
    chance, counts = random.Random(7), []
    for turn in range(KILLS):
        archive, note = tmp_path / f"archive{turn}", tmp_path / f"told{turn}"
        pid = forker.start("record", archive, note)
        wait_for(lambda note=note: told(note) > 0)
        threading.Event().wait(chance.random() * 0.12)
        os.kill(pid, signal.SIGKILL)
        assert forker.status() == -signal.SIGKILL
        run = Run(next(archive.glob("2*")))
        assert run.state == "interrupted"
        kept = run.table("counter.power")
        assert len(kept) >= told(note) > 0
        check_counted(kept)
        if turn % 5 == 0:
            query = f"SELECT count(*) FROM power WHERE run = '{run.id}'"
            assert connect(archive, query).execute(query).fetchall() == [(len(kept),)]
            packed = Run(run.path)
            assert packed.state == "packed"
            check_counted(packed.table("counter.power"))
        counts.append(len(kept))
    assert len(set(counts)) > KILLS / 2  # the moments did differ


@pytest.fixture
def reference(tmp_path) -> tuple[Path, dict[str, pa.Table]]:
    """A finished run, and its raw columns as pack sorts them."""
    folder = record(tmp_path / "reference")
    run = Run(folder.path)
    tables = {key: run.table(key) for key in run.keys()}  # noqa: SIM118 - a run is no mapping
    power = tables["meter.power"]
    tables["meter.power"] = pa.concat_tables(
        power.filter(pc.equal(power["rail"], r)) for r in ("cpu", "gpu", "soc")
    )
    return folder.path, tables


def check_raw(run: Run, tables: dict[str, pa.Table]) -> None:
    for key, wanted in tables.items():
        got = run.table(key, wanted.column_names)
        if key == "meter.power" and run.manifest.state != "packed":
            got = pa.concat_tables(got.filter(pc.equal(got["rail"], r)) for r in ("cpu", "gpu", "soc"))
        assert got.equals(wanted), key


def test_a_pack_killed_at_any_moment_can_be_done_again(tmp_path, forker, reference):
    source, tables = reference
    begun = time.perf_counter()  # noqa: TID251 - how long a whole pack takes here and now
    shutil.copytree(source, tmp_path / "timed")
    forker.start("pack", tmp_path / "timed", "once")
    assert forker.status() == 0
    whole = time.perf_counter() - begun  # noqa: TID251
    chance, left = random.Random(3), []
    path = tmp_path / "run"
    shutil.copytree(source, path)
    for turn in range(KILLS):
        again = Run(path).manifest.state == "packed"
        pid = forker.start("pack", path, "again" if again else "once")
        threading.Event().wait(chance.random() * whole)
        os.kill(pid, signal.SIGKILL)
        killed = forker.status() != 0
        whole *= 1.1 if killed else 0.8  # others use this machine too: the moments must stay within the work
        run = Run(path)
        check_raw(run, tables)  # as it was, or packed: never between
        left.append((run.manifest.state, killed, len(list(path.rglob("*")))))
        if turn % 10 == 9:  # after some kills one more try finishes the work, whatever lies about
            done = pack(path)
            check_raw(done, tables)
            assert (done.state, done.manifest.damage) == ("packed", {})
            listed = {s.file for s in (*done.manifest.streams.values(), *done.manifest.tables.values())}
            assert {p.name for p in path.iterdir()} == {"manifest.json", "lock", *listed}
            path = tmp_path / f"run{turn}"
            shutil.copytree(source, path)
    assert sum(killed for _, killed, _ in left) > KILLS / 3
    assert len(set(left)) > KILLS / 10  # the moments did differ


needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
SOURCE = Source("m", Stream("s", watts=W))


def rows(start: int, count: int) -> list[Batch]:
    ticks = np.arange(start, start + count)
    data = [pa.array(ticks), pa.array(ticks / 2)]
    return [Batch(SOURCE, pa.RecordBatch.from_arrays(data, schema=SOURCE.schema))]


@pytest.fixture
def disk(tmp_path, request) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this sandbox does not let root mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


@needs_mount
@pytest.mark.root
@pytest.mark.parametrize("disk", ["3m"], indirect=True)
def test_a_full_disk_ends_with_the_cause_and_the_good_rows(disk):
    folder = create(disk, recipe={})
    journal = Journal(folder, reserve_bytes=0, reserve_s=0)

    async def endless():
        for start in range(0, 10**9, 5000):
            yield rows(start, 5000)

    with pytest.raises(
        JournalError, match=r"m\.s\.arrows: expected to write .* No space left .* the disk is full"
    ):
        trio.run(journal.consume, endless())
    with pytest.raises(MeltError, match="the rows are kept"):
        folder.finish("disk full")
    run = Run(folder.path)
    assert run.state == "interrupted"
    ticks = run.table("m.s")["tick"].to_numpy()
    assert len(ticks) == folder.manifest.counts["m.s"] > 100_000
    assert (ticks == np.arange(len(ticks))).all()


@needs_mount
@pytest.mark.root
@pytest.mark.parametrize("disk", ["80m"], indirect=True)
def test_a_low_disk_ends_the_run_with_every_row(disk):
    folder = create(disk, recipe={})
    journal = Journal(folder, reserve_s=0.5)  # 64 MiB at least

    async def engine():
        start = 0
        while not journal.ending.is_set():
            yield rows(start, 5000)
            start += 5000
        yield rows(start, 7)

    with pytest.raises(DiskLow, match="free some space"):
        trio.run(journal.consume, engine())
    folder.finish("the disk is low")
    run = Run(folder.path)
    ticks = run.table("m.s")["tick"].to_numpy()
    assert len(ticks) % 5000 == 7
    assert (ticks == np.arange(len(ticks))).all()
    assert pack(run.path).manifest.damage == {}


@needs_mount
@pytest.mark.root
@pytest.mark.parametrize("disk", ["96m"], indirect=True)
def test_a_read_only_disk_is_named_and_still_read(disk):
    finished = record(disk)
    folder = create(disk, recipe={})
    journal = Journal(folder)
    folder.close()  # a file that is open for writing keeps a disk writable
    remount(disk, "ro")
    with pytest.raises(JournalError, match="the file system is read-only: remount it"):
        journal.write(rows(0, 10))
    with pytest.raises(ConfigError, match="Read-only file system; choose another"):
        create(disk, recipe={})
    query = f"SELECT count(*) FROM thermal WHERE run = '{finished.id}'"
    assert connect(disk, query).execute(query).fetchall() == [
        (4,)
    ]  # packed elsewhere, for as long as it is asked
    assert Run(finished.path).state == "finished"

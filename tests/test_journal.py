"""The journal: what comes back is what was written, or exactly the good part of it."""

import itertools
import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.frames import FrameReader, FrameWriter
from melt_stream.run import Run, create
from melt_stream.sink import Batch, Source
from melt_stream.sinks.journal import DiskLow, Journal, JournalError
from melt_stream.stream import Stream
from melt_stream.units import W

SOURCE = Source("meter", Stream("power", watts=W, rail=str, ok=bool))


def batch(start: int, rows: int, source: Source = SOURCE) -> Batch:
    ticks = np.arange(start, start + rows)
    rail = pa.array([None if t % 5 == 0 else f"rail{t % 3}" for t in ticks], pa.utf8())
    data = [pa.array(ticks), pa.array(ticks * 0.5), rail, pa.array(ticks % 2 == 0)]
    return Batch(source, pa.RecordBatch.from_arrays(data, schema=source.schema))


async def flushes(*batches: list[Batch]):
    for flush in batches:
        yield flush


def written(*batches: pa.RecordBatch) -> tuple[bytes, list[int]]:
    """A journal's bytes with end marker, and where each batch ends."""
    writer, data, ends = FrameWriter(batches[0].schema), b"", []
    for one in batches:
        writer.add(one)
        data += writer.take()
        ends.append(len(data))
    writer.end()
    return data + writer.take(), ends


BATCHES = [batch(100 * i, 20 + i).data for i in range(6)]
DATA, ENDS = written(*BATCHES)


def read(path: Path, data: bytes) -> tuple[list[pa.RecordBatch], FrameReader]:
    path.write_bytes(data)
    reader = FrameReader(path)
    return list(reader), reader


async def test_rows_come_back_with_schema_counts_and_an_end(tmp_path):
    folder = create(tmp_path, recipe={})
    other = Source("meter", Stream("other", watts=W, rail=str, ok=bool))
    await Journal(folder).consume(flushes([batch(0, 10), batch(0, 3, other)], [batch(10, 5)]))
    folder.finish("done")
    run = Run(folder.path)
    assert run.keys() == ["meter.other", "meter.power"]
    assert run.table("meter.power").equals(pa.Table.from_batches([batch(0, 15).data]))
    assert run.schema("meter.power").metadata == SOURCE.schema.metadata
    assert run.manifest.counts == {"meter.power": 15, "meter.other": 3}
    reader = run.reader("meter.power")
    assert sum(b.num_rows for b in reader) == 15
    assert (reader.clean, reader.damage) == (True, "")


async def test_any_arrow_library_reads_it(tmp_path):
    folder = create(tmp_path, recipe={})
    await Journal(folder).consume(flushes([batch(0, 10)]))
    with pa.ipc.open_stream(folder.journal / "meter.power.arrows") as stream:
        assert stream.read_all().num_rows == 10


async def test_rows_are_with_the_system_before_the_next_flush_is_taken(tmp_path):
    folder = create(tmp_path, recipe={})
    seen = []

    async def looking():
        for i in range(3):
            yield [batch(10 * i, 10)]
            seen.append(sum(b.num_rows for b in Run(folder.path).batches("meter.power")))

    await Journal(folder).consume(looking())
    assert seen == [10, 20, 30]


async def test_slices_are_stored_as_what_they_show(tmp_path):
    whole = batch(0, 100)
    cut = Batch(SOURCE, whole.data.slice(13, 50))
    folder = create(tmp_path, recipe={})
    await Journal(folder).consume(flushes([cut]))
    folder.finish("done")
    assert Run(folder.path).table("meter.power").to_batches()[0].equals(cut.data)


@pytest.mark.parametrize(
    "cut", [0, 7, ENDS[0] - 1, ENDS[0] - 90, ENDS[0], ENDS[0] + 1, ENDS[3] + 17, len(DATA) - 9]
)
@pytest.mark.parametrize("zeros", [0, 1, 8, 4096])
def test_a_torn_tail_leaves_the_batches_before_it(tmp_path, cut, zeros):
    torn = DATA[:cut] + bytes(zeros)
    got, reader = read(tmp_path / "j", torn)
    good = sum(torn[:end] == DATA[:end] for end in ENDS)  # zeros may be just the padding that was torn off
    assert got == BATCHES[:good]
    assert not reader.clean
    assert reader.damage


def test_zeros_inside_a_batch_are_not_rows(tmp_path):
    """Arrow alone reads the batch whose body was never written as rows of zeros."""
    begun = ENDS[2] + 600
    got, reader = read(tmp_path / "j", DATA[:begun] + bytes(ENDS[3] - begun))
    assert got == BATCHES[:3]
    assert "checksum" in reader.damage


def test_flipped_bits_never_change_a_row(tmp_path):
    chance = random.Random(20)
    for _ in range(1500):
        damaged = bytearray(DATA)
        at = chance.randrange(len(DATA))
        damaged[at] ^= 1 << chance.randrange(8)
        got, _ = read(tmp_path / "j", bytes(damaged))
        assert got == BATCHES[: len(got)]
        assert len(got) >= sum(end <= at for end in ENDS)


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(0, len(DATA)), st.binary(max_size=40)), max_size=4),
    keep=st.integers(0, len(DATA)),
)
def test_junk_never_becomes_rows(tmp_path_factory, pieces, keep):
    damaged = bytearray(DATA[:keep])
    for at, junk in pieces:
        damaged[at : at + len(junk)] = junk
    got, _ = read(tmp_path_factory.getbasetemp() / "junk", bytes(damaged))
    assert got == BATCHES[: len(got)]


def test_a_lost_block_ends_the_stream_there(tmp_path):
    got, reader = read(tmp_path / "j", DATA[: ENDS[1]] + DATA[ENDS[2] :])
    assert got == BATCHES[:2]
    assert "checksum" in reader.damage


async def test_two_streams_of_one_name_are_refused(tmp_path):
    folder = create(tmp_path, recipe={})
    other = Source("meter", Stream("power", volts=W, rail=str, ok=bool))
    with pytest.raises(
        JournalError, match=r"meter\.power\.arrows: expected the columns .*'watts'.*got .*'volts'"
    ):
        await Journal(folder).consume(flushes([batch(0, 4)], [batch(4, 4, other)]))
    assert folder.manifest.counts == {"meter.power": 4}


async def test_a_failed_write_is_never_followed_by_another(tmp_path, monkeypatch):
    folder = create(tmp_path, recipe={})
    journal = Journal(folder)
    journal.write([batch(0, 10)])
    real = os.write

    def half_then_full(number: int, data: memoryview) -> int:
        if len(data) > 600:
            return real(number, data[:600])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half_then_full)
    with pytest.raises(JournalError, match="disk is full"):
        await journal.consume(flushes([batch(10, 100)], [batch(110, 10)]))
    monkeypatch.undo()
    assert Run(folder.path).table("meter.power").num_rows == 10
    assert folder.manifest.counts == {"meter.power": 10}


async def test_the_run_ends_in_order_before_the_disk_is_full(tmp_path):
    folder = create(tmp_path, recipe={})
    journal = Journal(folder, reserve_bytes=1 << 60)
    taken = []

    async def engine():
        for i in itertools.count():
            if journal.ending.is_set():
                yield [batch(10 * i, 10)]  # what was on its way
                return
            taken.append(i)
            yield [batch(10 * i, 10)]

    with pytest.raises(
        DiskLow, match=r"expected 1,152,921,504,607 MB of free disk .* got .* MB: free some space"
    ):
        await journal.consume(engine())
    assert taken == [0]
    folder.finish("the disk is low")
    reader = Run(folder.path).reader("meter.power")
    assert sum(b.num_rows for b in reader) == 20
    assert reader.clean


async def test_a_run_that_does_not_end_is_left_after_a_while(tmp_path):
    journal = Journal(create(tmp_path, recipe={}), reserve_bytes=1 << 60, grace_s=0)

    async def stubborn():
        for i in itertools.count():
            yield [batch(10 * i, 10)]

    with trio.fail_after(30), pytest.raises(DiskLow):
        await journal.consume(stubborn())


async def test_it_is_synced_while_it_goes_on(tmp_path, autojump_clock, monkeypatch):
    journal = Journal(create(tmp_path, recipe={}), sync_every=5)
    real, token, times = os.fsync, trio.lowlevel.current_trio_token(), []
    synced = trio.Event()

    def noting(number: int) -> None:
        real(number)
        times.append(trio.from_thread.run_sync(trio.current_time, trio_token=token))
        trio.from_thread.run_sync(synced.set, trio_token=token)

    monkeypatch.setattr(os, "fsync", noting)
    begun = trio.current_time()

    async def waiting():
        yield [batch(0, 10)]
        await synced.wait()
        assert times[0] - begun >= 5

    await journal.consume(waiting())


async def test_a_vanished_folder_is_named(tmp_path):
    folder = create(tmp_path, recipe={})

    async def vanishing():
        yield [batch(0, 10)]
        folder.path.rename(tmp_path / "elsewhere")
        yield [batch(10, 10)]

    with pytest.raises(JournalError, match="found it gone"):
        await Journal(folder).consume(vanishing())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_cancelled_journal_leaves_no_descriptor(tmp_path):
    folder = create(tmp_path, recipe={})
    before = open_descriptors()

    async def hanging():
        yield [batch(0, 10)]
        scope.cancel()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        await Journal(folder).consume(hanging())
    assert open_descriptors() == before
    assert Run(folder.path).table("meter.power").num_rows == 10

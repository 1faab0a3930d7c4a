"""The importer `jls` on files that pyjls, which we did not write, has written: whole, with holes, cut and harmed."""

from __future__ import annotations

import hashlib
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyjls import AnnotationType, DataType, Writer

from melt_stream.analysis.clocks import fit
from melt_stream.collectors import jls
from melt_stream.collectors._jls import Gap, Holes, groups, signal, utc_map
from melt_stream.collectors._logic import changes
from melt_stream.collectors.jls import Jls
from melt_stream.errors import ConfigError, DataError, MeltError
from melt_stream.harness.session import import_recording
from melt_stream.outlet import Hub
from melt_stream.run import Run
from melt_stream.testing import Keep

BEGAN = (1 << 30) * 250_000_000
"""In 2025."""
HZ = 10_000


def utc(samples, hz=HZ):
    return BEGAN + round(samples / hz * (1 << 30))


def define(w, number, name, units="", **kind):
    w.signal_def(number, source_id=1, sample_rate=HZ, name=name, units=units, **kind)


def write(path, count=300_000, first=5000, hole=(200_000, 300), ppm=0.0):
    """A Joulescope's recording: amps a ramp, 2 V, watts; an input; marks; a UTC map by a clock ``ppm`` fast."""
    with Writer(str(path)) as w:
        w.source_def(source_id=1, name="JS220-000123", vendor="Jetperch", model="JS220", version="1", serial_number="000123")  # fmt: skip
        for number, (name, units) in enumerate([("current", "A"), ("voltage", "V"), ("power", "W")], 1):
            define(w, number, name, units)
        define(w, 4, "gpi[0]", data_type=DataType.U1)
        define(w, 5, "current_range", data_type=DataType.U8)
        amps = np.arange(count, dtype=np.float32) / count
        at, lost = hole
        for number, values in enumerate((amps, np.full(count, 2, np.float32), 2 * amps), 1):
            w.fsr_f32(number, first, values[:at])
            w.fsr_f32(number, first + at + lost, values[at + lost :])
            for sample in range(0, count, 60_000):
                w.utc(number, first + sample, utc(sample, HZ * (1 + ppm * 1e-6)))
        bits = np.zeros(count, np.uint8)
        bits[1000:2000] = bits[140_000:] = 1
        w.fsr(4, first, np.packbits(bits, bitorder="little"))
        w.fsr(5, first, bits)
        w.annotation(2, first + 700, None, AnnotationType.TEXT, 0, "boot")
        w.annotation(1, first + 500, None, AnnotationType.VMARKER, 0, "1a")
        w.annotation(1, first + 900, None, AnnotationType.USER, 0, b"\xff\x00")
        w.annotation(0, utc(10_000), None, AnnotationType.TEXT, 0, "everything")
        w.user_data(0, "a note")
    return path


async def imported(path):
    hub, keep = Hub(now=lambda: 0), Keep()
    importer = Jls(path)
    await importer.collect(hub.outlet("it"))
    keep.add(hub.take())
    return importer, keep


async def test_every_sample_the_input_the_marks_and_the_time(tmp_path):
    path = write(tmp_path / "a.jls", ppm=150)
    before = hashlib.sha256(path.read_bytes()).digest()
    importer, keep = await imported(tmp_path)
    rows = keep.table("it.main")
    tick = rows["tick"].to_numpy()
    there = np.r_[0:200_000, 200_300:300_000]
    assert np.array_equal(tick, there + 5000)
    amps = (np.arange(300_000, dtype=np.float32) / 300_000)[there]
    assert np.array_equal(rows["amps"].to_numpy(), amps)
    assert np.array_equal(rows["watts"].to_numpy(), 2 * amps)
    assert set(rows["volts"].to_pylist()) == {2.0}
    (gap,) = keep.rows("run.gaps")
    assert (gap["start"], gap["stop"], gap["lost_rows"]) == (204_999, 205_300, 300)
    assert [(row["tick"] - 5000, row["level"]) for row in keep.rows("it.gpi_0")] == [
        (0, False), (1000, True), (2000, False), (140_000, True),
    ]  # fmt: skip
    marks = [(row["tick"] - 5000, row["name"], row["text"]) for row in keep.rows("it.marks")]
    assert marks == [(500, "vertical marker", "1a"), (700, "text", "boot"), (900, "user", "2 bytes")]
    (whole,) = keep.rows("it.marks_utc")
    assert (whole["tick"], whole["text"]) == (pytest.approx(10**9, abs=2), "everything")
    (rail,) = keep.rows("run.rails")
    assert (rail["name"], rail["boundary"], rail["gain"]) == ("JS220-000123", "dc_in", None)
    facts = {row["name"]: row["value"] for row in keep.rows("run.facts")}
    assert facts["signals left out"] == '["current_range"]'
    assert facts["note"] == '"a note"'
    assert '"000123"' in facts["sources"]
    assert importer.start_utc_ns == (1_514_764_800 + 250_000_000) * 10**9
    (clock,) = fit(keep.table("run.readings")).table().to_pylist()
    assert (clock["clock"], clock["kind"], clock["tick0"], clock["offset_ns"]) == (
        "it.sample",
        "exact",
        5000,
        0,
    )
    assert clock["drift_ppm"] == pytest.approx(-150, abs=0.1)
    assert hashlib.sha256(path.read_bytes()).digest() == before


async def test_a_file_without_times_begins_at_0(tmp_path):
    with Writer(str(tmp_path / "a.jls")) as w:
        w.source_def(source_id=1, name="x")
        define(w, 1, "current", "A")
        w.fsr_f32(1, 0, np.ones(1000, np.float32))
    importer, keep = await imported(tmp_path / "a.jls")
    assert importer.start_utc_ns is None
    (clock,) = fit(keep.table("run.readings")).table().to_pylist()
    assert (clock["tick0"], clock["offset_ns"], clock["drift_ppm"]) == (0, 0, 0)
    assert keep.rows("run.rails") == []  # a current alone is no power
    assert len(keep.rows("it.main")) == 1000


async def test_signals_that_begin_and_end_apart_and_two_instruments(tmp_path):
    with Writer(str(tmp_path / "a.jls")) as w:
        for source, far in ((1, 0), (2, 1 << 45)):
            w.source_def(source_id=source, name=f"meter{source}")
            for number, units, start, count in ((1, "A", 0, 200_003), (2, "V", 77, 150_001)):
                w.signal_def(10 * source + number, source_id=source, sample_rate=HZ, name=units, units=units)
                w.fsr_f32(10 * source + number, far + start, np.full(count, number, np.float32))
    _, keep = await imported(tmp_path)
    for stream, far in (("main", 0), ("main2", 1 << 45)):
        rows = keep.table(f"it.{stream}")
        assert np.array_equal(rows["tick"].to_numpy(), far + np.arange(200_003))
        known = [k for k, volts in enumerate(rows["volts"].to_pylist()) if volts is not None]
        assert (known[0], known[-1], len(known)) == (77, 150_077, 150_001)
        gaps = [
            (gap["start"] - far, gap["stop"] - far)
            for gap in keep.rows("run.gaps")
            if gap["stream"] == stream
        ]
        assert gaps == [(-1, 77), (150_077, 200_003)]
    assert [rail["name"] for rail in keep.rows("run.rails")] == ["meter1", "meter2"]


async def test_a_logic_signal_whose_blocks_begin_within_a_byte(tmp_path):
    bits = np.random.default_rng(1).integers(0, 2, 300_000).astype(np.uint8)
    with Writer(str(tmp_path / "a.jls")) as w:
        w.source_def(source_id=1, name="x")
        define(w, 1, "current", "A")
        w.fsr_f32(1, 0, np.ones(300_003, np.float32))
        define(w, 2, "1!", data_type=DataType.U1)
        w.fsr(2, 3, np.packbits(bits, bitorder="little"))
    _, keep = await imported(tmp_path)
    rows = keep.table("it.signal_2")
    edges = np.r_[0, np.flatnonzero(np.diff(bits)) + 1]
    assert np.array_equal(rows["tick"].to_numpy(), edges + 3)
    assert np.array_equal(rows["level"].to_numpy(zero_copy_only=False), bits[edges].astype(bool))


async def test_nothing_to_import(tmp_path):
    with Writer(str(tmp_path / "a.jls")) as w:
        w.source_def(source_id=1, name="x")
        define(w, 1, "current_range", data_type=DataType.U8)
        w.fsr(1, 0, np.ones(1000, np.uint8))
    with pytest.raises(
        DataError, match=r"expected a signal in A, V or W with samples, got current_range \(other\)"
    ):
        await imported(tmp_path)
    with pytest.raises(ConfigError, match=r"expected one \.jls file, got none"):
        await imported(tmp_path.parent)
    (tmp_path / "b.jls").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"got a\.jls, b\.jls; name it"):
        await imported(tmp_path)


async def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(jls, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"melt-stream\[jls\]"):
        await imported(tmp_path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda _: b"", "byte 0: expected the head of a .jls file"),
        (lambda data: b"PK\x03\x04" + data[4:], "byte 0: expected the head"),
        (lambda data: data[:-10], "byte 16: expected a file of the"),
        (lambda data: data[: len(data) // 2], "byte 16: expected a file of the"),
        (lambda data: data[:16] + bytes(8) + data[24:], "byte 16: expected a file of the 0 bytes"),
        (lambda data: data[:60] + b"\xff" + data[61:], "its head: expected what pyjls can read"),
        (lambda data: data[:800_000] + bytes(64) + data[800_064:], "samples from"),
    ],
)
async def test_a_file_that_is_damaged_is_refused_with_the_place_and_not_changed(tmp_path, harm, said):
    path = write(tmp_path / "a.jls")
    path.write_bytes(harmed := harm(path.read_bytes()))
    with pytest.raises(DataError, match="expected") as refused:
        await imported(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == harmed


async def test_mangled_files_are_imported_or_refused(tmp_path):
    rng, good = (
        random.Random(20261124),
        write(tmp_path / "a.jls", count=20_000, hole=(10_000, 10)).read_bytes(),
    )
    refusals = []
    for _ in range(8):
        at = rng.choice([rng.randrange(32, 3000), rng.randrange(32, len(good))])
        bad = good[:at] + rng.randbytes(4) + good[at + 4 :]
        (tmp_path / "a.jls").write_bytes(bad)
        try:
            await imported(tmp_path / "a.jls")
        except MeltError as exc:
            refusals.append(str(exc))
    assert len(refusals) > 3
    assert [message for message in refusals if "expected" not in message] == []


async def test_a_reader_that_dies_or_hangs_is_told(tmp_path, monkeypatch):
    write(tmp_path / "a.jls", count=20_000, hole=(10_000, 10))
    monkeypatch.setattr(jls, "PATIENCE_S", 0.001)
    with pytest.raises(DataError, match="its head: expected what pyjls can read, got TooSlowError"):
        await imported(tmp_path)
    monkeypatch.setattr(jls, "PATIENCE_S", 60.0)
    monkeypatch.setattr(jls.sys, "executable", "/bin/true")
    with pytest.raises(DataError, match="its head: expected what pyjls can read, got StopAsyncIteration"):
        await imported(tmp_path)


def test_an_import_is_a_run(tmp_path):
    path = import_recording(
        "jls", write(tmp_path / "a.jls", count=20_000, hole=(10_000, 10)), tmp_path / "archive"
    )
    assert Run(path).manifest.start_utc_ns == (1_514_764_800 + 250_000_000) * 10**9


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_holes_over_the_edges_of_blocks(missing, size):
    holes, found = Holes(), []
    for k in range(0, len(missing), size):
        found += holes.feed(1000 + k, np.array(missing[k : k + size]))
    found += holes.close(1000 + len(missing))
    assert sum(gap.lost for gap in found) == sum(missing)
    expected = "".join("x" if one else " " for one in missing).split()
    assert [gap.lost for gap in found] == [len(run) for run in expected]
    for gap in found:
        assert gap.stop - gap.start - 1 == gap.lost
        assert all(missing[gap.start + 1 - 1000 : gap.stop - 1000])
    assert all(isinstance(gap, Gap) for gap in found)


TOLD = {"signal_id": 1, "source_id": 1, "name": "i", "units": "A", "data_type": "f32", "sample_rate": 10, "sample_id_offset": 7, "length": 5}  # fmt: skip


@pytest.mark.parametrize("harm", [{"sample_rate": 0}, {"sample_rate": 1 << 40}, {"sample_id_offset": 1 << 61}, {"length": -1}, {"length": 1 << 50}])  # fmt: skip
def test_a_definition_that_cannot_be_is_refused(harm):
    with pytest.raises(DataError, match=r"x, signal 1 \(i\): expected a rate and a length"):
        signal(TOLD | harm, "x")


def test_a_utc_map_that_runs_backwards_is_refused_and_times_that_are_none_are_left_out():
    one = signal(TOLD, "x")
    good = utc_map(struct.pack("<6q", 0, 5, 5, BEGAN, utc(5), utc(5)), one, "x")
    assert good == [(7, BEGAN), (12, utc(5))]
    assert utc_map(struct.pack("<4q", 0, 5, 0, -5), one, "x") == []
    with pytest.raises(
        DataError, match=r"UTC map of signal 1 \(i\), entry 1: expected samples and times that increase"
    ):
        utc_map(struct.pack("<4q", 0, 5, BEGAN, BEGAN - 1), one, "x")


def test_names_of_inputs_are_unique():
    found, left_out = groups(
        [signal(TOLD | {"signal_id": k, "data_type": "u1", "name": "Main"}, "x") for k in (1, 2)]
    )
    assert ([list(group.inputs) for group in found], left_out) == ([["signal_1", "signal_2"]], [])


def test_a_level_before_a_block_decides_whether_its_first_is_a_change():
    assert [list(part) for part in changes(b"\x01", 2, None)] == [[0, 1], [True, False]]
    assert [list(part) for part in changes(b"\x01", 2, True)] == [[1], [False]]

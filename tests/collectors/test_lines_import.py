"""The importer `lines`: any table of text becomes a run, or says where it is wrong."""

import random

import pytest

from melt_stream.collectors.lines_import import LinesImport
from melt_stream.errors import ConfigError, DataError, MeltError
from melt_stream.harness.session import import_recording
from melt_stream.run import Run
from melt_stream.testing import Keep
from tests.collectors.importing import imported_by_the_engine as imported

HEAD = 'data = "t.csv"\n{first}\n[columns]\nt = "{unit}"\nwatts = "mW"\n[rails.board]\nboundary = "board"\n'


def described(folder, data, *, unit="ms", first='time = "t"'):
    (folder / "lines.toml").write_text(HEAD.format(unit=unit, first=first))
    (folder / "t.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return LinesImport(folder)


def ticks(keep: Keep) -> list[int]:
    return keep.column("it.board", "tick")


def test_times_begin_at_zero_and_junk_is_a_gap(tmp_path):
    keep = imported(described(tmp_path, "1000,1\n1010,2\nhello\n1030,4\n1020,5\n1040,6\n1050,"))
    assert ticks(keep) == [0, 10_000_000, 30_000_000, 40_000_000]
    assert keep.column("it.board", "watts") == pytest.approx([0.001, 0.002, 0.004, 0.006])
    gaps = keep.rows("run.gaps")
    assert [(gap["start"], gap["stop"], gap["lost_rows"]) for gap in gaps] == [
        (10_000_000, 30_000_000, 1), (30_000_000, 40_000_000, 1), (40_000_000, 40_000_000, 1)
    ]  # fmt: skip
    assert "line 3: expected 2 columns" in gaps[0]["reason"]
    assert "line 5: stamped before" in gaps[1]["reason"]
    assert "has no end" in gaps[2]["reason"]


def test_a_wrap_is_undone(tmp_path):
    wrap = 1 << 32
    text = "".join(f"{(wrap - 20 + 10 * k) % wrap},1\n" for k in range(5))
    assert ticks(imported(described(tmp_path, text, unit="us"))) == [10_000 * k for k in range(5)]


def test_dates_and_seconds_since_1970_tell_when_the_run_began(tmp_path):
    text = "2026-01-02T03:04:05.25+01:00,1\n2026-01-02T03:04:06.5+01:00,2\nyesterday,3\n"
    importer = described(tmp_path, text, unit="text")
    assert ticks(imported(importer)) == [0, 1_250_000_000]
    assert importer.start_utc_ns == 1767319445_250000000
    importer = described(tmp_path, "1767319445.25,1\n1767319446.5,2\n", unit="s")
    assert ticks(imported(importer)) == [0, 1_250_000_000]
    assert importer.start_utc_ns == 1767319445_250000000


def test_without_times_the_rate_tells_and_junk_takes_its_place(tmp_path):
    keep = imported(described(tmp_path, "1,1\njunk\n3,3\n", unit="-", first="hz = 100"))
    assert ticks(keep) == [0, 20_000_000]


def test_a_run_made_of_a_table(tmp_path):
    described(tmp_path, "".join(f"{10 * k},500\n" for k in range(10_000)))
    run = Run(import_recording("lines", tmp_path / "lines.toml", tmp_path / "archive"))
    assert run.manifest.imported == "lines"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "t.csv: expected records as described, got none; it is empty"),
        ("hello\nworld\n", "got none; line 1: expected 2 columns, got 1 in 'hello'"),
        ("1000,1\n" + "1,1\n" * 101, "t.csv, line 102: expected times that never decrease"),
    ],
)
def test_a_file_that_is_none_is_refused_with_its_place(tmp_path, data, said):
    with pytest.raises(DataError, match=said):
        imported(described(tmp_path, data, unit="s"))


@pytest.mark.parametrize(
    ("unit", "first", "said"),
    [
        ("ms", "", "expected time, the column that has the time, or hz, got neither"),
        ("ms", 'time = "x"', "time: expected a column, got 'x'"),
        ("V", 'time = "t"', "time: expected a column in s, ms, us, ns, got 't', in 'V'"),
        ("ms", "hzz = 1", "did you mean 'hz'"),
        ("ms", "hz = ", "expected TOML that describes a file"),
    ],
)
def test_a_description_that_is_wrong_is_refused(tmp_path, unit, first, said):
    with pytest.raises(ConfigError, match=said):
        imported(described(tmp_path, "1,1\n", unit=unit, first=first))


def test_mangled_tables_are_imported_or_refused(tmp_path):
    rng = random.Random(1)
    whole = "".join(f"{10 * k},{k}\n" for k in range(200)).encode()
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(5)] = rng.randbytes(rng.randrange(5))
        try:
            found = ticks(imported(described(tmp_path, bytes(data))))
        except MeltError:
            continue
        assert found == sorted(found)


def test_the_file_must_be_there_and_be_a_file(tmp_path):
    importer = described(tmp_path, "1,1\n")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DataError, match="expected a readable file"):
        imported(importer)

"""Importers of meters' exports: what their programs write, with its quirks, becomes the samples that were measured."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melt_stream.analysis.pack import pack
from melt_stream.clock import monotonic
from melt_stream.collectors import _ppk2_files
from melt_stream.collectors._monsoon_csv import Spread
from melt_stream.collectors._trace_csv import read_head
from melt_stream.collectors.monsoon_import import MonsoonImport
from melt_stream.collectors.otii_import import OtiiImport
from melt_stream.collectors.ppk2_import import Ppk2Import
from melt_stream.emulators import Load
from melt_stream.emulators.monsoon_hvpm import MonsoonHvpm
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.session import import_recording
from melt_stream.testing import Keep
from tests.collectors.importing import imported
from tests.emulators.emulated_usb import EmulatedUsb


def columns(keep: Keep, stream: str) -> dict[str, np.ndarray]:
    table = keep.table(f"it.{stream}")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def written(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Monsoon


@pytest.mark.realtime
@pytest.mark.parametrize("periodic", [False, True])
def test_what_pymonsoon_itself_writes(tmp_path, monkeypatch, periodic):
    """Its own engine writes the file, of an emulated box: NumPy's cells, trailing commas, seconds called ms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from Monsoon import HVPM, pmapi, sampleEngine
    box = MonsoonHvpm()
    box.load, box.began = Load.parse("square:0.4W,4W,400ms"), monotonic()
    monkeypatch.setattr(pmapi.usb.core, "find", EmulatedUsb(box).find)
    monsoon = HVPM.Monsoon()
    monsoon.setup_usb(Protocol=pmapi.USB_protocol())
    monsoon.setVout(4.0)
    engine = sampleEngine.SampleEngine(monsoon)
    engine.ConsoleOutput(False)
    path = tmp_path / "measured.csv"
    if periodic:  # as MELT's rig does: no header
        engine.periodicStartSampling()
        engine.enableCSVOutput(str(path))
        for _ in range(40):
            engine.periodicCollectSamples(100)
        engine.periodicStopSampling(closeCSV=True)
    else:
        engine.enableChannel(sampleEngine.channels.USBCurrent)
        engine.enableChannel(sampleEngine.channels.USBVoltage)
        engine.enableCSVOutput(str(path))
        engine.startSampling(5000)
    text = path.read_text()
    assert ("Time(ms)" in text) is not periodic
    assert "np.float64(" in text
    (tmp_path / ".t_monsoon").write_text("1700000000.25")
    importer = MonsoonImport(path)
    keep = imported(importer)
    assert importer.start_utc_ns == 1_700_000_000_250_000_000
    rows = columns(keep, "main")
    assert len(rows["tick"]) == text.count("\n") - (not periodic)
    assert (np.diff(rows["tick"]) >= 0).all()
    assert np.unique(rows["volts"]) == pytest.approx([4.0])
    levels = rows["amps"] > 0.55
    assert rows["amps"][~levels] == pytest.approx(np.full((~levels).sum(), 0.1), abs=1e-4)
    assert rows["amps"][levels] == pytest.approx(np.full(levels.sum(), 1.0), abs=1e-4)
    edges = rows["tick"][1:][np.diff(levels.astype(int)) != 0]
    assert np.diff(edges) == pytest.approx(np.full(len(edges) - 1, 200e6), abs=60e6)
    if not periodic:
        assert columns(keep, "usb")["amps"] == pytest.approx(np.full(len(rows["tick"]), 0.25), abs=1e-5)
        assert {rail["name"]: rail["boundary"] for rail in keep.rows("run.rails")} == {
            "main": "battery",
            "usb": "dc_in",
        }


def pymonsoon(stamps, amps, header: str = "Time(ms),Main(mA),Main Voltage(V),\n") -> str:
    return header + "".join(
        f"np.float64({t!r}),np.float64({float(a) * 1000!r}),4.0,\n"
        for t, a in zip(map(float, stamps), amps, strict=True)
    )


def test_samples_that_share_a_stamp_lie_evenly_before_it(tmp_path):
    true = np.arange(1, 20_001) / 5000
    stamps = np.ceil(true / 0.0156) * 0.0156 + 0.003  # a clock of 15.6 ms, and 3 ms of latency
    rows = columns(imported(MonsoonImport(written(tmp_path, pymonsoon(stamps, true)))), "main")
    late = rows["tick"] / 1e9 - true
    assert len(late) == 20_000
    assert late.min() > -0.001
    assert late.max() < 0.019
    assert np.diff(rows["tick"]).max() < 1.1 * 200_000


def test_missing_samples_are_a_gap_where_the_stamps_have_room(tmp_path):
    true = np.arange(1, 20_001) / 5000
    there = ~((true > 2.0) & (true <= 2.1))
    stamps = np.ceil(true / 0.0006) * 0.0006
    keep = imported(MonsoonImport(written(tmp_path, pymonsoon(stamps[there], true[there]))))
    rows = columns(keep, "main")
    assert np.abs(rows["tick"] / 1e9 - rows["amps"]).max() < 0.002
    (gap,) = keep.rows("run.gaps")
    assert gap["lost_rows"] == pytest.approx(500, abs=3)
    assert (gap["start"], gap["stop"]) == (pytest.approx(2.0e9, abs=2e6), pytest.approx(2.1e9, abs=2e6))


def test_whole_seconds_since_1970_are_those_of_the_first_that_share_them(tmp_path):
    true = 1_700_000_000.4 + np.arange(20_000) / 5000
    header = "Time(ms),Main Voltage(V),USB(mA),Main(mA),\n"
    text = header + "".join(f"{int(t)},4.0,1.0,{(t - 1.7e9) * 1000!r},\n" for t in true)
    importer = MonsoonImport(written(tmp_path, text))
    rows = columns(imported(importer), "main")
    assert importer.start_utc_ns == 1_700_000_000_000_000_000
    assert np.abs(rows["tick"] / 1e9 - rows["amps"]).max() < 0.001


@pytest.mark.parametrize("names", ["Main Avg Current (mA),Main Avg Power (mW),Main Avg Voltage (V)"])
def test_a_powertool_export_has_means_and_its_own_units(tmp_path, names):
    other = names.replace("(mA)", "(A)").replace("(mW)", "(W)")
    times = [k / 5 for k in range(40) if not 20 <= k < 22]
    text = f"Time (s),{names}\n" + "".join(f"{t},{100 + t},{400 + 4 * t},4\r\n" for t in times)
    swapped = f"\ufeffTime (s),{other}\n" + "".join(
        f"{t},{(100 + t) / 1000!r},{(400 + 4 * t) / 1000!r},4\n" for t in times
    )
    keeps = [
        imported(MonsoonImport(written(tmp_path, body, f"{k}.csv"))) for k, body in enumerate((text, swapped))
    ]
    for keep in keeps:
        rows = columns(keep, "main")
        assert rows["watts"] == pytest.approx([0.4 + 0.004 * t for t in times])
        assert rows["amps"] == pytest.approx([0.1 + t / 1000 for t in times])
        (rail,) = keep.rows("run.rails")
        assert (rail["kind"], rail["window_ns"]) == ("mean", pytest.approx(2e8))
        (gap,) = keep.rows("run.gaps")
        assert (gap["start"], gap["stop"], gap["lost_rows"]) == (4_000_000_000, 4_400_000_000, 2)


def test_current_alone_needs_a_voltage_and_a_european_file_is_read(tmp_path):
    text = "Time (s);Main Avg Current (mA)\n" + "".join(f"{k},5;{k}00,25\n" for k in range(5))
    path = written(tmp_path, text)
    without = imported(MonsoonImport(path))
    assert without.rows("run.rails") == []
    assert columns(without, "main")["amps"] == pytest.approx([k / 10 + 0.00025 for k in range(5)])
    with_volts = imported(MonsoonImport(path, volts=3.9))
    assert columns(with_volts, "main")["volts"] == pytest.approx([3.9] * 5)
    assert len(with_volts.rows("run.rails")) == 1


@pytest.mark.parametrize("rate", [1.0, 0.97, 1.002])
def test_no_sample_is_lost_or_moved_before_another_however_it_is_fed(rate):
    dice = np.random.default_rng(1)
    stamps = np.sort(np.ceil(np.arange(30_000) / (5000 * rate) / 0.001) * 0.001 + 0.0)
    for size in (1_000, 7_001, 30_000):
        spread, placed = Spread(200e-6), []
        for start in range(0, 30_000, size):
            part = slice(start, start + size)
            placed += spread.feed(stamps[part], dice.random((len(stamps[part]), 1)))
        placed += spread.finish()
        seconds = np.concatenate([one.seconds for one in placed])
        assert len(seconds) == 30_000
        assert (np.diff(seconds) >= -1e-12).all()
        assert np.abs(seconds - np.arange(1, 30_001) / (5000 * rate)).max() < 0.003


# PPK2


def ppk2(
    path: Path, microamps, bits=None, *, hz=100_000, extra=(), raw: bytes | None = None, **metadata
) -> Path:
    frames = np.zeros(len(microamps), _ppk2_files.FRAME)
    frames["microamps"] = microamps
    frames["bits"] = 0xAAAA if bits is None else bits
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("session.raw", frames.tobytes() if raw is None else raw)
        told = {"metadata": {"samplesPerSecond": hz, **metadata}, "formatVersion": 2}
        archive.writestr("metadata.json", json.dumps(told))
        archive.writestr("minimap.raw", "{}")
        for name, data in extra:
            archive.writestr(name, data)
    return path


def test_a_saved_session_is_read_sample_by_sample(tmp_path):
    microamps = np.linspace(1, 50_000, 300_000)
    microamps[1000:1200] = 0.2  # what the app writes for a sample that it did not receive
    microamps[5] = np.nan
    bits = np.full(300_000, 0b0101_0101_0101_0101)
    bits[200_000:] = 0b0101_0101_0101_1001  # D1 goes up
    bits[250_000:] = 0b1101_0101_0101_1001  # D7 both within a sample
    importer = Ppk2Import(
        ppk2(tmp_path / "a.ppk2", microamps, bits, startSystemTime=1_700_000_000_123), volts=3.7
    )
    keep = imported(importer)
    rows = columns(keep, "power")
    assert importer.start_utc_ns == 1_700_000_000_123_000_000
    assert len(rows["tick"]) == 299_800
    assert np.isnan(rows["amps"][5])
    good = np.isfinite(rows["amps"])
    assert rows["amps"][good] == pytest.approx(microamps[rows["tick"] // 10_000][good] * 1e-6, rel=1e-6)
    assert np.unique(rows["volts"]) == pytest.approx([3.7])
    (gap,) = keep.rows("run.gaps")
    assert (gap["start"], gap["stop"], gap["lost_rows"]) == (10_000_000, 12_000_000, 200)
    levels = [(row["tick"], row["pin"], row["level"]) for row in keep.rows("it.logic")]
    assert levels[:8] == [(0, pin, 0) for pin in range(8)]
    assert levels[8:] == [(2_000_000_000, 1, 1), (2_500_000_000, 7, None)]
    (rail,) = keep.rows("run.rails")
    assert (rail["kind"], rail["sample_period_ns"]) == ("gauge", 10_000)


def test_below_its_full_rate_the_app_has_averaged(tmp_path):
    keep = imported(Ppk2Import(ppk2(tmp_path / "a.ppk2", np.full(50, 100.0), hz=1000), volts=3.0))
    (rail,) = keep.rows("run.rails")
    assert (rail["kind"], rail["window_ns"]) == ("mean", 1e6)


def test_without_a_voltage_there_is_no_power(tmp_path):
    keep = imported(Ppk2Import(ppk2(tmp_path / "a.ppk2", np.full(50, 100.0))))
    assert keep.rows("run.rails") == []
    assert "volts" not in columns(keep, "power")


@pytest.mark.parametrize("header", ["Timestamp(ms),Current(uA)", "Timestamp(ms),Current(uA),D0-D7,D0,D1"])
def test_its_csv_export(tmp_path, header):
    more = ",01-1X010,0,1" if "D0" in header else ""
    lines = [f"{500 + k / 100},{100 + k:.3f}{more}" for k in range(1000) if not 300 <= k < 310]
    lines[20] = f"500.2,0.200{more}"
    keep = imported(Ppk2Import(written(tmp_path, "\n".join([header, *lines, ""])), volts=3.7))
    rows = columns(keep, "power")
    assert len(rows["tick"]) == 989
    assert rows["amps"] == pytest.approx((100 + rows["tick"] / 10_000) * 1e-6, rel=1e-5)
    assert [(gap["start"], gap["stop"], gap["lost_rows"]) for gap in keep.rows("run.gaps")] == [
        (200_000, 210_000, 1),
        (3_000_000, 3_100_000, 10),
    ]


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return file.getvalue()


META = json.dumps({"metadata": {"samplesPerSecond": 100_000}}).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected a zip archive's end, got none"),
        (b"PK\x05\x06" + b"\0" * 5, "expected a zip archive's end"),
        (
            b"\0" * 30 + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 5 << 20, 0, 0),
            "expected a directory of at most",
        ),
        (zip_of(session_raw=b"\0" * 12), "expected one metadata.json in it, got session.raw"),
        (zip_of(metadata_json=META), "expected one session.raw in it, got metadata.json"),
        (zip_of(metadata_json=META, session_raw=b""), "expected samples in it, got none"),
        (
            zip_of(metadata_json=META, session_raw=b"\0" * 16),
            r"session\.raw, byte 12: expected 6 bytes a sample, got 4",
        ),
        (zip_of(metadata_json=b"[" * 5000, session_raw=b""), "metadata.json: expected samplesPerSecond"),
        (zip_of(metadata_json=b"{}", session_raw=b""), "metadata.json: expected samplesPerSecond"),
        (
            zip_of(metadata_json=META.replace(b"100000", b"true"), session_raw=b""),
            "samplesPerSecond of 0.001 to 1e",
        ),
        (
            zip_of(metadata_json=META.replace(b"100000", b"1e99"), session_raw=b""),
            "samplesPerSecond of 0.001 to 1e",
        ),
        (
            zip_of(metadata_json=b" " * (1 << 17), session_raw=b""),
            "metadata.json: expected at most 65536 bytes",
        ),
    ],
)
def test_a_session_that_is_none_is_refused(tmp_path, data, said):
    with pytest.raises(DataError, match=said):
        imported(Ppk2Import(written(tmp_path, data, "a.ppk2")))


def test_a_zip_bomb_does_not_go_off(tmp_path, monkeypatch):
    monkeypatch.setattr(_ppk2_files, "SESSION_LIMIT", 1 << 22)
    bomb = written(tmp_path, zip_of(metadata_json=META, session_raw=bytes(6 << 20)), "a.ppk2")
    assert bomb.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"session\.raw: expected at most 4194304 bytes, got 6291456"):
        imported(Ppk2Import(bomb))
    data = bomb.read_bytes()  # ... nor one that says it is small
    small = data.replace(struct.pack("<I", 6 << 20), struct.pack("<I", 600))
    assert small != data
    with pytest.raises(DataError, match=r"session\.raw, byte \d+: expected more samples"):
        imported(Ppk2Import(written(tmp_path, small, "b.ppk2")))


# Otii


def test_an_otii_export_whose_voltage_comes_less_often(tmp_path):
    lines = [f"{k / 4000:.6f},{k / 1000},{3.7 + k / 1e4 if k % 10 == 5 else ''},{k}" for k in range(4000)]
    text = "\n".join(["Timestamp (s),Arc Main current (A),Arc Main voltage (V),ADC current (A)", *lines])
    keep = imported(OtiiImport(written(tmp_path, text)))
    rows = columns(keep, "main")
    assert len(rows["tick"]) == 3999  # a last line without its end may have been cut
    assert rows["amps"] == pytest.approx(np.arange(3999) / 1000)
    assert np.isnan(rows["volts"][:5]).all()
    assert rows["volts"][5:25] == pytest.approx([3.7005] * 10 + [3.7015] * 10)
    (rail,) = keep.rows("run.rails")
    assert (rail["kind"], rail["sample_period_ns"]) == ("gauge", 250_000)


def test_an_otii_export_in_other_units_of_another_channel(tmp_path):
    text = "Time [ms];Main current [A];ADC current [uA]\n" + "".join(f"{k};1;{k}00,5\n" for k in range(20))
    rows = columns(imported(OtiiImport(written(tmp_path, text), channel="adc", volts=2.5)), "main")
    assert rows["amps"] == pytest.approx([(k * 100 + 0.5) * 1e-6 for k in range(20)])
    assert rows["tick"].tolist() == [k * 1_000_000 for k in range(20)]
    assert rows["volts"] == pytest.approx([2.5] * 20)


def test_two_recordings_in_one_export_are_refused(tmp_path):
    text = "Timestamp,Rec 1 Main current (A),Rec 2 Main current (A)\n0,1,1\n"
    with pytest.raises(DataError, match="expected one current of main, got columns 2 and 3"):
        imported(OtiiImport(written(tmp_path, text)))


# All of them


@pytest.mark.parametrize(
    ("importer", "text", "said"),
    [
        (MonsoonImport, "", "line 1: expected a line of CSV, got ''"),
        (
            MonsoonImport,
            "a,b,c\n1,2,3\n",
            r"expected columns as PyMonsoon or PowerTool name them.*got a, b, c",
        ),
        (MonsoonImport, "1,2\n3,4\n", "got 2 columns"),
        (MonsoonImport, "Time(ms),Main(mA),\n", "expected lines of numbers, got none"),
        (MonsoonImport, "Time(ms),Main(mA),\n0,1,\n1,x,\n", "line 3, column 2: expected a number, got 'x'"),
        (
            MonsoonImport,
            "Time(ms),Main(mA),\n0,1,\n1\n",
            "line 3, column 2: expected a number, got 1 columns",
        ),
        (MonsoonImport, "Time(ms),Main(mA),\n0,1,\n,2,\n", "line 3: expected a time in seconds, got nan"),
        (MonsoonImport, "Time(ms),Main(mA),\n0,1,\ninf,2,\n", "expected a time in seconds, got inf"),
        (
            MonsoonImport,
            "Time(ms),Main(mA),\n5,1,\n4,2,\n",
            "line 3: expected times that never decrease, got 4.0 after 5.0",
        ),
        (MonsoonImport, "Time(ms),Main(mA),\n0,1,\n" + "7" * 70_000, "line 3: expected at most 65536 bytes"),
        (MonsoonImport, "," * 2000, "expected 2 to 1000 columns, got 0"),
        (MonsoonImport, b"\x00\xff" * 10 + b"\n", "expected a line of CSV"),
        (Ppk2Import, "Timestamp(ms),D0-D7\n0,1\n", r"expected the columns Timestamp\(ms\) and Current\(uA\)"),
        (Ppk2Import, "1,2\n", "got no header"),
        (Ppk2Import, "Timestamp(ms),Current(uA)\n0,0.2\n", "expected lines of numbers, got none"),
        (Ppk2Import, "Timestamp(ms),Current(uA)\n0,\u00e9\n", "line 2, column 2: expected a number"),
        (OtiiImport, "Timestamp (s),Main voltage (V)\n0,1\n", "expected a header such as Timestamp"),
        (
            OtiiImport,
            "Timestamp (s),Main current (V)\n0,1\n",
            "line 1, column 2: expected a unit convertible to 'A'",
        ),
        (OtiiImport, "Timestamp (s),Main current (A)\n0,\n", "expected lines of numbers, got none"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place(tmp_path, importer, text, said):
    with pytest.raises(DataError, match=said):
        imported(importer(written(tmp_path, text)))


NUMBERS = st.floats(-1e6, 1e6) | st.just(float("nan"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=30),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.binary(max_size=20),
)
def test_numbers_come_out_as_they_went_in_and_a_cut_line_does_not(
    tmp_path, rows, sign, trailing, newline, tail
):
    def cell(number: float) -> str:
        text = "" if number != number else repr(number)  # noqa: PLR0124 - nan
        return text.replace(".", ",") if sign == ";" else text

    lines = [sign.join(map(cell, row)) + sign * trailing for row in rows]
    text = newline.join([sign.join("abc") + sign * trailing, *lines, ""]).encode()
    path = written(tmp_path, text + tail.replace(b"\n", b""))
    values = np.concatenate([block.values for block in read_head(path).blocks([0, 1, 2])])
    np.testing.assert_array_equal(values, np.array(rows))


def test_a_folder_must_have_one(tmp_path):
    with pytest.raises(ConfigError, match="expected one CSV file, got none"):
        imported(MonsoonImport(tmp_path))
    written(tmp_path, MonsoonImport.example()["tree"]["measured.csv"])
    assert columns(imported(MonsoonImport(tmp_path)), "main")


def test_faults_are_placed_beyond_the_first_block(tmp_path):
    lines = [f"{k / 5000},{k % 7}.25,4.0," for k in range(120_000)]
    lines[100_000] = "20.0,?,4.0,"
    path = written(tmp_path, "\n".join(["Time(ms),Main(mA),Main Voltage(V),", *lines, ""]))
    assert path.stat().st_size > 1 << 20
    with pytest.raises(DataError, match=r"line 100002, column 2: expected a number, got '\?'"):
        imported(MonsoonImport(path))


def test_what_is_imported_is_a_run_like_any_other(tmp_path):
    stamps = np.ceil(np.arange(1, 10_001) / 3) * 3 / 5000
    path = written(tmp_path, pymonsoon(stamps, np.full(10_000, 0.5)))
    run = pack(import_recording("monsoon", path, tmp_path / "archive", {"boundary": "dc_in"}))
    table = run.table("monsoon.main")
    assert table["joules"][-1].as_py() == pytest.approx(4.0, rel=1e-3)
    assert run.manifest.recipe["import"] == {"kind": "monsoon", "path": str(path), "boundary": "dc_in"}
    with pytest.raises(ConfigError, match="expected a key of MonsoonImport, got 'bondary'"):
        import_recording("monsoon", path, tmp_path / "archive", {"bondary": "dc_in"})

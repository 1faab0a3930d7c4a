"""Importer tegrastats: three generations of its lines, absent sensors, and times that its dates hardly tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors._tegrastats import parse
from melt_stream.collectors.tegrastats_import import TegrastatsImport
from melt_stream.errors import DataError
from tests.collectors.importing import imported

NANO = (
    "RAM 1500/3964MB (lfb 2x1MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [12%@1479,off,8%@1479,0%@102] "
    "EMC_FREQ 3%@1600 GR3D_FREQ 45%@921 APE 25 PLL@32C CPU@34.5C PMIC@100C GPU@34C AO@41C thermal@34C POM_5V_IN 2470/2480 "
    "POM_5V_GPU 240/120 POM_5V_CPU 840/850"
)
ORIN = (
    "05-27-2024 {time} RAM 4722/62800MB (lfb 40x4MB) SWAP 1/31400MB (cached 0MB) CPU [3%@729,0%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 39%@[305,0] NVENC off NVDEC off VIC_FREQ 729 APE 174 CV0@-256C CPU@50.656C tboard@38.25C "
    "SOC2@46.906C tj@50.656C VDD_GPU_SOC {soc}mW/2398mW VDD_CPU_CV 399mW/399mW VIN_SYS_5V0 3022mW/3022mW "
    "VDDQ_VDD2_1V8AO 302mW/302mW"
)
THOR = (
    "RAM 3000/125000MB (lfb 1x4MB) CPU [0%@972,1%@972] EMC_FREQ 3%@3199 GR3D_FREQ @[1000,1000,1000] cpu@52.968C/53.1C "
    "gpu@-256C VDD_GPU_SOC 5139mW/5200mW/7000mW VIN 12000mW/11000mW/13000mW"
)


def log(folder: Path, *lines: str) -> Path:
    path = folder / "tegrastats.log"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_line_of_each_generation():
    nano, orin, thor = parse(NANO), parse(ORIN.format(time="16:33:45", soc=2797)), parse(THOR)
    assert nano.watts == {"POM_5V_IN": 2.47, "POM_5V_GPU": 0.24, "POM_5V_CPU": 0.84}
    assert nano.celsius == {"PLL": 32, "CPU": 34.5, "PMIC": 100, "GPU": 34, "AO": 41, "thermal": 34}
    assert nano.state["cpu_load"] == pytest.approx(20 / 3)
    assert nano.cores == {0: (12, 1479e6), 2: (8, 1479e6), 3: (0, 102e6)}
    assert nano.state["cpu_hz"] == pytest.approx(1020e6)
    assert (nano.state["gpu_load"], nano.state["gpu_hz"], nano.state["emc_hz"]) == (45, 921e6, 1600e6)
    assert nano.state["ram_used"] == 1500 * 2**20
    assert orin.watts == {
        "VDD_GPU_SOC": 2.797, "VDD_CPU_CV": 0.399, "VIN_SYS_5V0": 3.022, "VDDQ_VDD2_1V8AO": 0.302,
    }  # fmt: skip
    assert "CV0" not in orin.celsius
    assert orin.celsius["SOC2"] == 46.906
    assert (orin.state["gpu_load"], orin.state["gpu_hz"], orin.state["vic_hz"]) == (39, 305e6, 729e6)
    assert orin.date_s - parse(ORIN.format(time="16:33:44", soc=1)).date_s == 1
    assert thor.watts == {"VDD_GPU_SOC": 5.139, "VIN": 12.0}
    assert thor.celsius == {"cpu": 52.968}
    assert "gpu_load" not in thor.state
    assert thor.state["gpu_hz"] == 1000e6


@pytest.mark.parametrize(("period", "start"), [(1.07, 0.2), (1.0, 0.98), (0.25, 0.0), (5.3, 0.5)])
def test_dates_in_whole_seconds_are_spread_and_no_line_leaves_its_second(tmp_path, period, start):
    """The real tool takes 1.07 s for 1 s, so that its date skips a second now and then."""
    true = start + np.arange(300) * period
    lines = [
        ORIN.format(time=f"{16 + int(t) // 3600}:{int(t) // 60 % 60:02}:{int(t) % 60:02}", soc=400 * k)
        for k, t in enumerate(true)
    ]
    keep = imported(TegrastatsImport(log(tmp_path, *lines), interval_ms=1000 * round(period, 1)))
    rows = [row for row in keep.rows("it.power") if row["rail"] == "VDD_GPU_SOC"]
    tick = np.array([row["tick"] for row in rows])
    assert [row["watts"] for row in rows] == pytest.approx([0.4 * k for k in range(300)])
    assert (tick // 10**9).tolist() == true.astype(int).tolist()
    assert np.abs(tick / 1e9 - true).max() < 0.5
    assert {row["t_u"] for row in rows} == {500_000_000}
    assert keep.rows("run.gaps") == []
    rails = {
        rail["name"]: (rail["boundary"], rail["parent"], rail["kind"]) for rail in keep.rows("run.rails")
    }
    assert rails["total"] == ("board", None, "gauge")
    assert rails["VDD_CPU_CV"] == ("rail", "total", "gauge")
    total = [row["watts"] for row in keep.rows("it.power") if row["rail"] == "total"]
    assert total == pytest.approx([0.4 * k + 0.399 + 3.022 for k in range(300)])
    assert keep.rows("run.rails")[0]["sample_period_ns"] == pytest.approx(period * 1e9, rel=0.01)


def test_a_break_in_the_log_is_a_gap(tmp_path):
    times = [f"10:00:{k:02}" for k in range(20)] + [f"10:01:{k:02}" for k in range(20)]
    keep = imported(TegrastatsImport(log(tmp_path, *(ORIN.format(time=t, soc=1) for t in times))))
    (gap,) = [gap for gap in keep.rows("run.gaps") if gap["stream"] == "power"]
    assert gap["lost_rows"] in (39, 40)
    assert {gap["stream"] for gap in keep.rows("run.gaps")} == {"power", "thermal", "state", "cores"}


def test_lines_that_a_logger_stamped_have_its_times(tmp_path):
    stamps = ["1700000000.250000000", "1700000001.500000000", "1700000002.400000000"]
    importer = TegrastatsImport(log(tmp_path, *(f"{stamp} {NANO}" for stamp in stamps)))
    keep = imported(importer)
    assert importer.start_utc_ns == 1_700_000_000_250_000_000
    rows = [row for row in keep.rows("it.power") if row["rail"] == "POM_5V_IN"]
    assert [(row["tick"], row["t_u"]) for row in rows] == [
        (0, None),
        (1_250_000_000, None),
        (2_150_000_000, None),
    ]
    assert {rail["name"]: rail["boundary"] for rail in keep.rows("run.rails")}["POM_5V_IN"] == "board"


def test_without_dates_lines_are_an_interval_apart_and_others_are_counted(tmp_path):
    keep = imported(TegrastatsImport(log(tmp_path, "started", NANO, "", "RAM?", NANO), interval_ms=500))
    assert sorted({row["tick"] for row in keep.rows("it.power")}) == [0, 500_000_000]
    facts = {fact["name"]: fact["value"] for fact in keep.rows("run.facts")}
    assert (facts["lines_left_out"], facts["times"]) == ("2", '"the interval"')


def test_the_total_is_what_is_said(tmp_path):
    path = log(tmp_path, ORIN.format(time="10:00:00", soc=1000))
    keep = imported(TegrastatsImport(path, total=("VDD_GPU_SOC", "VDDQ_VDD2_1V8AO")))
    assert [row["watts"] for row in keep.rows("it.power") if row["rail"] == "total"] == pytest.approx([1.302])
    with pytest.raises(DataError, match="expected the rails VDD_IN, got VDDQ_VDD2_1V8AO, VDD_CPU_CV"):
        imported(TegrastatsImport(path, total=("VDD_IN",)))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["nothing of the kind"], "expected lines of tegrastats .* got none in 1"),
        ([""], "got none in 0"),
        (["13-45-2024 10:00:00 " + NANO], "got none in 1"),
        (
            [ORIN.format(time=t, soc=1) for t in ("10:00:01", "10:00:00")],
            "line 2: expected times that never decrease",
        ),
        (["1700000002.5 " + NANO, "1700000001.5 " + NANO], "line 2: expected times that never decrease"),
    ],
)
def test_a_log_that_is_none_is_refused(tmp_path, lines, said):
    with pytest.raises(DataError, match=said):
        imported(TegrastatsImport(log(tmp_path, *lines)))


@given(
    st.text(max_size=300),
    st.integers(0, 300),
    st.sampled_from([NANO, THOR, ORIN.format(time="10:00:00", soc=7)]),
)
def test_no_text_makes_the_parser_fail(junk, at, line):
    for text in (junk, line[:at] + junk + line[at:], line[:at]):
        told = parse(text)
        if told is not None:
            assert all(0 <= watts < 1e4 for watts in told.watts.values())
            assert all(celsius > -256 for celsius in told.celsius.values())

"""Recorded clocks: what published results of other people's hosts and instruments say of their clocks."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from melt_stream.analysis.clock_latency import latency_drift, student
from melt_stream.analysis.clocks import Maps, fit
from melt_stream.collectors.energyrunner import EnergyRunner
from melt_stream.collectors.mlperf_power import MlperfPower
from melt_stream.internal import READINGS
from melt_stream.outlet import Hub

TRACES = Path(os.environ.get("MELT_TRACES", Path(__file__).parents[2] / "shared" / "traces"))
XAVIER = TRACES / "mlperf_inference" / "xavier_bert99"
TINY = sorted(path.parent for path in TRACES.glob("mlperf_tiny/*/trace1-timestamps.json"))
ABSENT = f"needs the recorded traces in {TRACES} (or $MELT_TRACES)"
MS = 1e6
WINDOWS_TICK_NS = 15_625_000


async def readings(collector: MlperfPower | EnergyRunner, clock: str) -> pa.Table:
    """What the importer says of one clock."""
    hub = Hub(now=lambda: 0)
    await collector.collect(hub.outlet("x"))
    batches = [batch.data for batch in hub.take() if batch.source.key == "run.readings"]
    return pa.Table.from_batches(batches).filter(pa.compute.field("clock_of") == clock)


def with_rho(table: pa.Table, ppm: float) -> pa.Table:
    at = table.schema.get_field_index("rho_ppm")
    return table.set_column(at, table.schema.field(at), pa.array([ppm] * len(table)))


def offset_ms(maps: Maps, clock: str, tick: int) -> tuple[float, float]:
    """Between what the host's clock is ahead of this tick."""
    placed = maps.to_host(clock, 0, np.array([tick], np.int64))
    assert placed is not None
    low, high = maps.bound(clock, 0, placed)
    return (placed[0] - tick + low[0]) / MS, (placed[0] - tick + high[0]) / MS


@pytest.mark.skipif(not XAVIER.exists(), reason=ABSENT)
class TestXavier:
    """A Windows server, whose stamps step by 15.625 ms, beside its client: 20 exchanges in 21 minutes."""

    async def test_a_line_goes_through_all_of_them(self) -> None:
        told = await readings(MlperfPower(XAVIER), "x.server")
        assert set(told["resolution"].to_pylist()) == {WINDOWS_TICK_NS}
        maps = fit(with_rho(told, 0.0))  # one line, as if nothing had steered either clock
        (row,) = maps.table().to_pylist()
        assert row["residual_ns"] == 0
        first, last = min(told["count"].to_pylist()), max(told["count"].to_pylist())
        assert offset_ms(maps, "x.server", first) == (
            pytest.approx(45.8, abs=0.5),
            pytest.approx(49.9, abs=0.5),
        )
        assert offset_ms(maps, "x.server", last) == (
            pytest.approx(40.7, abs=0.5),
            pytest.approx(46.4, abs=0.5),
        )
        drift, bound = row["drift_ppm"], row["drift_bound_ppm"]
        assert (drift - bound, drift + bound) == (pytest.approx(-7.1, abs=0.1), pytest.approx(0.5, abs=0.1))

    async def test_a_clock_that_ntp_steers_is_known_less_well_but_never_elsewhere(self) -> None:
        told = await readings(MlperfPower(XAVIER), "x.server")
        line, steered = fit(with_rho(told, 0.0)), fit(told)
        (row,) = steered.table().to_pylist()  # no extra segment
        assert (row["residual_ns"], row["rho_ppm"]) == (0, pytest.approx(500.0))
        for tick in told["count"].to_pylist():
            (low, high), (least, most) = (offset_ms(maps, "x.server", tick) for maps in (line, steered))
            assert least <= low + 1e-3
            assert high - 1e-3 <= most
        assert offset_ms(steered, "x.server", min(told["count"].to_pylist()))[0] > 45.0

    @pytest.mark.parametrize("width", [0, 1])
    async def test_without_the_width_of_a_tick_they_contradict_each_other_and_it_is_found(
        self, width: int
    ) -> None:
        told = with_rho(await readings(MlperfPower(XAVIER), "x.server"), 0.0)
        before, after, tick = (
            np.array([np.nan if v is None else v for v in told[name].to_pylist()], float)
            for name in ("not_before", "not_after", "count")
        )
        burst = tick - tick[0] < 60e9
        assert np.nanmax((before - tick)[burst]) > np.nanmin((after - tick)[burst]) + 5 * MS
        at = told.schema.get_field_index("resolution")
        fine = told.set_column(at, told.schema.field(at), pa.array([width] * len(told), pa.int64()))
        (row,) = fit(fine).table().to_pylist()  # no step is invented
        assert (row["residual_ns"], row["resolution_ns"]) == (0, WINDOWS_TICK_NS)


@pytest.mark.skipif(not TINY, reason=ABSENT)
@pytest.mark.parametrize("folder", TINY, ids=lambda folder: folder.name)
class TestTiny:
    """An instrument's edges beside a host's log: commands before they start, answers after they end, both late."""

    async def test_its_drift_is_known_within_70_ppm(self, folder: Path) -> None:
        told = await readings(EnergyRunner(folder), "x.trace")
        (row,) = fit(told).table().to_pylist()
        found = latency_drift(told)
        assert found is not None
        drift, half = found[0] * 1e6, found[1] * 1e6
        assert half <= 70
        assert (drift, half) == pytest.approx(of_two_latencies(told), rel=2e-3)
        assert row["residual_ns"] == 0
        assert abs(row["drift_ppm"] - drift) <= row["drift_bound_ppm"]  # the bound asks nothing of latencies

    async def test_neither_latency_is_taken_for_the_other(self, folder: Path) -> None:
        told = await readings(EnergyRunner(folder), "x.trace")
        maps = fit(told)
        for row in told.to_pylist():  # the truth lies within the bound: no reading is contradicted
            least, most = offset_ms(maps, "x.trace", row["count"])
            if row["not_before"] is not None:
                assert most * MS >= row["not_before"] - row["count"] - row["resolution"] - 1
            if row["not_after"] is not None:
                assert least * MS <= row["not_after"] - row["count"] + 1


def of_two_latencies(told: pa.Table) -> tuple[float, float]:
    """The slope that commands and answers share, each with a latency of its own, and its 95 % interval, in ppm.

    By the book: a design matrix, its covariance, Student's t with n - 3 degrees of freedom.
    """
    rows = [(r["kind"], r["count"] * 1e-9, r["not_before"] or r["not_after"]) for r in told.to_pylist()]
    rows = [row for row in rows if row[0] in ("cause", "arrival")]
    design = np.array([[at, kind == "cause", kind == "arrival"] for kind, at, _ in rows], float)
    late = np.array([host * 1e-9 - at for _, at, host in rows])
    found, *_ = np.linalg.lstsq(design, late, rcond=None)
    variance = np.sum((late - design @ found) ** 2) / (len(rows) - 3)
    spread = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    return found[0] * 1e6, spread * stats.t.ppf(0.975, len(rows) - 3) * 1e6


def test_few_commands_or_answers_tell_no_drift() -> None:
    assert latency_drift(READINGS.schema.empty_table()) is None


@pytest.mark.parametrize("free", [5, 7, 20, 1000])
def test_student_s_quantile(free: int) -> None:
    assert student(free) == pytest.approx(stats.t.ppf(0.975, free), rel=2e-3)

"""The report: what its figures hold, that nothing of a run can act in it, and how it looks to a browser."""

import base64
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.analysis.pack import pack
from melt_stream.analysis.report import build
from melt_stream.analysis.report.clock_figure import left_for_truth, residuals
from melt_stream.analysis.report.series import lanes, slopes, thin, union
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.analysis.summary import summarise
from melt_stream.internal import READINGS
from melt_stream.run import Run
from tests.packed_run import GAP_NS, MS, Story, story, write
from tests.recorded import SECONDS, record

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="expected chromium, found none: apt-get install chromium"
)
PLOT = "document.querySelector('[data-figure=\"%s\"]')"
AXIS = PLOT + ".layout.xaxis"
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


def made(tmp_path: Path, told: Story, **options: Any) -> Path:
    return build(write(tmp_path / "run-1", told, **options), tmp_path / "report.html")


def drawn(page: Path) -> dict[str, Any]:
    """The figures in a page, with their arrays as numpy's."""
    text = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page.read_text())
    assert text is not None
    return json.loads(text[1], object_hook=_array)


def _array(item: dict[str, Any]) -> Any:
    return (
        np.frombuffer(base64.b64decode(item["bdata"]), np.dtype(f"<{item['dtype']}"))
        if "bdata" in item
        else item
    )


def traces(page: Path, figure: str) -> dict[str, dict[str, Any]]:
    """A figure's traces by name; of those with one name the first."""
    found: dict[str, dict[str, Any]] = {}
    for trace in drawn(page)[figure]["figure"]["data"]:
        found.setdefault(trace.get("name", ""), trace)
    return found


class TestThinning:
    @given(st.integers(0, 2**32), st.integers(5_000, 60_000))
    def test_every_bin_keeps_its_lowest_and_its_highest(self, seed: int, count: int) -> None:
        values = np.random.default_rng(seed).normal(size=count)
        t_ns = np.arange(count, dtype=np.int64) * MS
        t_s, kept, gaps = thin(t_ns, values, MS, points=1000)
        assert len(gaps) == 0
        assert len(kept) <= 1002
        assert (kept.min(), kept.max()) == (values.min(), values.max())
        assert (t_s[0], t_s[-1]) == (0, t_ns[-1] / 1e9)
        assert np.all(np.diff(t_s) > 0)
        np.testing.assert_array_equal(kept, values[np.round(t_s * 1e9 / MS).astype(int)])

    def test_one_spike_in_a_million_samples_is_there(self) -> None:
        values = np.full(1_000_000, 2.0)
        values[654_321] = 30.0
        t_s, kept, _ = thin(np.arange(1_000_000, dtype=np.int64) * 1000, values, 1000.0)
        assert t_s[kept == 30.0].tolist() == [0.654321]

    @pytest.mark.parametrize("period", [float(MS), None])
    def test_a_step_of_more_than_three_periods_breaks_the_line(self, period: float | None) -> None:
        t_ns = np.array([0, 1, 2, 3, 6, 7, 8, 12, 13], np.int64) * MS
        t_s, values, gaps = thin(t_ns, np.arange(9.0), period)
        assert gaps.tolist() == [[8 * MS, 12 * MS]]
        assert np.flatnonzero(np.isnan(values)).tolist() == [7]
        assert t_s[6:9].tolist() == [0.008, 0.008, 0.012]

    def test_a_sample_that_is_not_a_number_breaks_the_line(self) -> None:
        values = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
        _, kept, gaps = thin(np.arange(5, dtype=np.int64) * MS, values, float(MS))
        np.testing.assert_array_equal(kept, [1, 2, np.nan, 4, 5])
        assert gaps.tolist() == [[MS, 3 * MS]]

    def test_the_longest_gaps_are_kept_where_there_are_too_many(self) -> None:
        steps = np.tile([1, 1, 1, 1, 10], 2000)
        steps[[2504, 7004]] = 5000
        _, values, gaps = thin(np.cumsum(steps, dtype=np.int64) * MS, np.ones(10_000), float(MS))
        assert int(np.isnan(values).sum()) == len(gaps) == 400
        assert sorted((gaps[:, 1] - gaps[:, 0]).tolist())[-3:] == [10 * MS, 5000 * MS, 5000 * MS]

    def test_nothing_is_nothing(self) -> None:
        t_s, values, gaps = thin(np.empty(0, np.int64), np.empty(0), None)
        assert (len(t_s), len(values), gaps.shape) == (0, 0, (0, 2))


def test_a_rail_that_measured_nothing_is_not_drawn(tmp_path: Path) -> None:
    run = write(tmp_path / "run-1", story())
    path = run.stored("cpu_estimate.power")
    table = pq.read_table(path)
    nothing = pa.array([None] * len(table), pa.float64())
    pq.write_table(table.set_column(1, table.schema.field("watts"), nothing), path)
    assert (
        "cpu_estimate.power/cpu"
        not in build(run, tmp_path / "report.html").read_text().split("Provenance")[0]
    )


def test_a_counters_power_is_its_slope_between_changes_over_covered_time() -> None:
    t_ns = np.arange(8, dtype=np.int64) * 100 * MS
    running = np.array([0, 0, 1, 1, 2, 2, 2, 5.0])
    covered = np.array([0, 1, 2, 3, 4, 5, 5, 6]) * 100 * MS  # the step before the last row is in a gap
    stamps, watts = slopes(t_ns, running, covered)
    assert stamps.tolist() == [200 * MS, 400 * MS, 700 * MS]
    np.testing.assert_allclose(watts, [1 / 0.2, 1 / 0.2, 3 / 0.2])


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=15)


@given(SPANS)
def test_no_interval_covers_another_in_its_lane_and_no_lane_is_needless(spans: list[tuple[int, int]]) -> None:
    start = np.array([a for a, _ in spans], np.int64)
    stop = np.array([a + n for a, n in spans], np.int64)
    lane = lanes(start, stop)
    at = np.arange(100)
    active = [(start[lane == n, None] <= at) & (at < stop[lane == n, None]) for n in range(len(spans))]
    assert all(a.sum(axis=0).max(initial=0) <= 1 for a in active)
    most = ((start[:, None] <= at) & (at < stop[:, None])).sum(axis=0).max(initial=0)
    assert lane.max(initial=-1) + 1 == most


@given(SPANS)
def test_joined_intervals_cover_the_same_time(spans: list[tuple[int, int]]) -> None:
    start = np.array([a for a, _ in spans], np.int64)
    stop = np.array([a + n for a, n in spans], np.int64)
    at = np.arange(100)
    first, last = union(start, stop)
    np.testing.assert_array_equal(
        ((start[:, None] <= at) & (at < stop[:, None])).any(axis=0),
        ((first[:, None] <= at) & (at < last[:, None])).sum(axis=0).astype(bool),
    )
    assert np.all(first[1:] > last[:-1])


class TestFigures:
    def test_the_account_comes_first_and_every_rail_is_drawn(self, tmp_path: Path) -> None:
        lines = [
            n for n, t in traces(made(tmp_path, story()), "power-host").items() if t.get("yaxis") == "y2"
        ]
        assert lines == [
            "meter.power/main, account",
            "rapl.energy/package",
            "cpu_estimate.power/cpu (estimated)",
        ]

    def test_bands_stand_where_the_phases_were_and_differ_without_colour(self, tmp_path: Path) -> None:
        told = story()
        found = traces(made(tmp_path, told), "power-host")
        prefill = [(p["start_ns"] / 1e9, p["stop_ns"] / 1e9) for p in told.phases if p["phase"] == "prefill"]
        corners = found["prefill"]["x"].reshape(-1, 5)
        assert list(zip(corners[:, 0], corners[:, 2], strict=True)) == prefill
        patterns = [
            found[p].get("fillpattern", {}).get("shape") for p in ("queue", "prefill", "decode", "load")
        ]
        assert len(set(patterns)) == 4

    def test_every_token_has_its_tick(self, tmp_path: Path) -> None:
        told = story()
        ticks = traces(made(tmp_path, told), "power-host")["token"]
        assert ticks["x"][::3].tolist() == [t["stop_ns"] / 1e9 for t in told.tokens]
        assert ticks["text"][3] == ticks["text"][4]  # at both ends, wherever it is pointed at
        assert ticks["text"][3].startswith("request 1, token 1 “ energy”, 0.1")

    def test_a_tokens_text_is_shown_as_it_is(self, tmp_path: Path) -> None:
        texts = traces(made(tmp_path, story(words=("don't", "<b>", "a\n"))), "power-host")["token"]["text"]
        assert [re.split("[“”]", text)[1] for text in texts[:9:3]] == ["don't", "&lt;b&gt;", "a⏎"]

    def test_a_gap_breaks_the_line_and_is_hatched(self, tmp_path: Path) -> None:
        found = traces(made(tmp_path, story()), "power-host")
        gap, rail = found["gap: no samples"], found["meter.power/main, account"]
        assert gap["fillpattern"]["shape"] == "x"
        assert gap["x"][[0, 2]].tolist() == [GAP_NS[0] / 1e9 - 0.001, GAP_NS[1] / 1e9]
        inside = (rail["x"] > GAP_NS[0] / 1e9) & (rail["x"] < GAP_NS[1] / 1e9)
        assert not np.isfinite(rail["y"][inside]).any()
        assert int(np.isnan(rail["y"]).sum()) == 1

    def test_the_run_before_the_accounts_first_sample_and_after_its_last_is_hatched(
        self, tmp_path: Path
    ) -> None:
        run = write(tmp_path / "run-1", story(gap=None))
        path = run.path / "meter.power.parquet"
        pq.write_table(pq.read_table(path).slice(800, 10_700), path)
        gap = traces(build(run, tmp_path / "report.html"), "power-host")["gap: no samples"]
        assert gap["x"].reshape(-1, 5)[:, [0, 2]].tolist() == [[0, 0.8], [11.499, 12]]

    def test_a_run_without_gaps_hatches_nothing(self, tmp_path: Path) -> None:
        assert "gap: no samples" not in traces(made(tmp_path, story(gap=None)), "power-host")

    def test_energy_per_token_is_that_of_the_table(self, tmp_path: Path) -> None:
        told = story()
        line = traces(made(tmp_path, told), "tokens")["request 1"]
        expected = [t["joules"] for t in told.tokens if t["request"] == 1 and t["index"] > 0]
        assert line["x"].tolist() == list(range(1, 64))
        np.testing.assert_allclose(line["y"], expected, rtol=1e-6)

    def test_a_token_in_a_gap_has_no_energy_and_not_zero(self, tmp_path: Path) -> None:
        told = story()
        line = traces(made(tmp_path, told), "tokens")["request 3"]
        lost = [t["index"] for t in told.tokens if t["request"] == 3 and t["index"] and t["coverage"] < 0.99]
        assert len(lost) > 5
        assert line["x"][np.isnan(line["y"])].tolist() == lost
        assert np.nanmin(line["y"]) > 0.1

    def test_many_requests_are_summed_up_by_their_spread(self, tmp_path: Path) -> None:
        told = Story(gap=None)
        for number in range(20):
            told.request(number, number * 500, prompt=5, output=8)
        names = list(traces(made(tmp_path, told), "tokens"))
        assert names == ["middle 80 % of 20 requests", "median of 20 requests"]

    def test_other_streams_are_drawn_with_their_units(self, tmp_path: Path) -> None:
        page = made(tmp_path, story())
        assert set(drawn(page)) == {
            "power-host", "tokens", "cpu.cpu-busy", "memory.memory-used", "thermal.thermal-temperature",
        }  # fmt: skip
        assert list(traces(page, "cpu.cpu-busy")) == ["cpu0", "cpu1"]
        layout = drawn(page)["thermal.thermal-temperature"]["figure"]["layout"]
        assert layout["yaxis"]["title"]["text"] == "°C"

    def test_rows_of_unknown_time_are_left_out_and_the_rest_is_in_order(self, tmp_path: Path) -> None:
        run = write(tmp_path / "run-1", story())
        path = run.path / "thermal.thermal.parquet"
        table = pq.read_table(path)
        t_ns = table["t_ns"].to_pylist()
        t_ns[:3], t_ns[5], t_ns[6] = [None] * 3, t_ns[6], t_ns[5]
        place = table.schema.get_field_index("t_ns")
        pq.write_table(table.set_column(place, "t_ns", pa.array(t_ns, pa.int64())), path)
        found = traces(build(run, tmp_path / "report.html"), "thermal.thermal-temperature")
        assert found["x86_pkg_temp"]["x"][0] == 0.3
        assert np.all(np.diff(found["x86_pkg_temp"]["x"]) > 0)


class TestWords:
    def test_estimated_power_is_called_so_everywhere(self, tmp_path: Path) -> None:
        page = made(tmp_path, story(estimated=True, boundary="package", gap=None))
        text = page.read_text()
        assert "<strong>Estimated.</strong>" in text
        assert "at the boundary package, estimated" in text
        rail = traces(page, "power-host")["meter.power/main, account (estimated)"]
        assert rail["line"]["dash"] == "dot"
        assert (
            drawn(page)["tokens"]["figure"]["layout"]["yaxis"]["title"]["text"]
            == "J/token (package, estimated)"
        )
        assert "request 1 (estimated)" in traces(page, "tokens")

    def test_without_power_there_are_no_joules_and_the_page_says_so(self, tmp_path: Path) -> None:
        page = made(tmp_path, story(powered=False))
        assert "<strong>No power was measured.</strong>" in page.read_text()
        assert "tokens" not in drawn(page)

    def test_how_many_samples_a_point_stands_for_is_said(self, tmp_path: Path) -> None:
        text = made(tmp_path, story(gap=None)).read_text()
        assert "a point stands for up to 3 samples (12,000 in all)" in text

    def test_official_results_stand_beside_ours(self, tmp_path: Path) -> None:
        oracle = {
            "run": "r",
            "request": 1,
            "quantity": "joules",
            "unit": "J",
            "reported": 2.5,
            "recomputed": 2.5,
            "ours": 2.51,
        }
        text = made(tmp_path, story(), oracles=[oracle]).read_text()
        assert "Official results beside ours" in text
        assert "1.00400" in text  # ours / reported
        assert "Official results" not in made(tmp_path / "without", story()).read_text()

    def test_an_imported_run_is_not_said_to_be_of_this_machine(self, tmp_path: Path) -> None:
        run = write(tmp_path / "run-1", story())
        run.manifest.imported = "energyrunner"
        run.manifest.save(run.path)
        text = build(Run(run.path), tmp_path / "report.html").read_text()
        assert "<dt>imported on: cpu</dt><dd>AMD EPYC 9V45</dd>" in text
        assert text.count("AMD EPYC 9V45") == 1
        assert "imported by energyrunner" in text

    def test_columns_that_say_nothing_are_left_out(self, tmp_path: Path) -> None:
        told = story(model="")
        for request in told.requests:
            request |= {"model": None}
        assert '<th scope="col">model</th>' not in made(tmp_path, told).read_text()
        assert '<th scope="col">model</th>' in made(tmp_path / "with", story()).read_text()

    def test_provenance_names_host_rails_accuracy_and_exit(self, tmp_path: Path) -> None:
        text = made(tmp_path, story()).read_text()
        for words in ("Linux 6.12.3", "AMD EPYC 9V45", "performance", "data sheet, rev. 3", "workloads ended",
                      "llama.server", "± 80.0 µs", "unreadable: the meter did not answer", "cross-check"):  # fmt: skip
            assert words in text

    def test_an_empty_run_has_a_page(self, tmp_path: Path) -> None:
        assert "Nothing happened in this run" in made(tmp_path, Story(powered=False)).read_text()

    def test_power_without_any_phase_is_drawn(self, tmp_path: Path) -> None:
        page = made(tmp_path, Story())
        assert "meter.power/main" in traces(page, "power-host")
        assert "<strong>No joules.</strong>" in page.read_text()


def test_a_recorded_and_packed_run_comes_out_as_it_was(tmp_path: Path) -> None:
    """Rails of 1, 2 and 3 W, a counter of 5 W on a clock that runs after the run, four requests of five tokens."""
    times = itertools.chain([10**10], itertools.repeat(10**10 + SECONDS * 10**9))
    run = pack(record(tmp_path / "archive", now=times.__next__).path)
    page = build(run, tmp_path / "report.html")
    found = traces(page, "power-board")
    rails = ["meter.power/cpu, account", "meter.power/gpu", "meter.power/soc", "usb.energy/total"]
    means = [float(np.nanmean(found[rail]["y"])) for rail in rails]
    np.testing.assert_allclose(means, [1.0, 2.0, 3.0, 5.0], rtol=1e-3)
    assert len(found["token"]["x"]) == 3 * 4 * 5
    decode = {row.phase: row for row in summarise(run).rows}["decode"]
    assert (decode.tokens, decode.boundary) == (16, "rail")
    assert decode.joules_per_token == pytest.approx(0.1, rel=1e-6)
    np.testing.assert_allclose(traces(page, "tokens")["request 1"]["y"], 0.1, rtol=1e-6)
    assert list(traces(page, "heat.thermal-celsius")) == ["a"]


def hostile() -> Story:
    told = story(
        model=HOSTILE, words=(HOSTILE, "<!--<script>", "%{x}&lt;b&gt;", "--grid", "\u2028"), rail=HOSTILE
    )
    told.requests[0] |= {"error": HOSTILE, "name": HOSTILE}
    told.phases[0] |= {"phase": "other", "name": HOSTILE}
    return told


def test_texts_of_a_run_open_no_element(tmp_path: Path) -> None:
    plain, text = (made(tmp_path / n, t).read_text() for n, t in (("plain", story()), ("hostile", hostile())))
    assert text.count("<script") == plain.count("<script")
    assert text.count("<img") == plain.count("<img")
    assert "window.hacked" in text  # it is there, as text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


class Opened:
    """A page from disk in a window of its own, and all that it complained about or asked for."""

    def __init__(self, browser: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("html[data-ready=yes]")

    def range(self, figure: str) -> list[float]:
        return list(self.page.evaluate(f"{AXIS % figure}.range"))

    def middle_of(self, figure: str) -> tuple[float, float, float]:
        """Scroll a plot to the top; return the middle of its area, and its width."""
        self.page.evaluate(f"{PLOT % figure}.scrollIntoView()")
        box = self.page.locator(f'[data-figure="{figure}"] .nsewdrag').first.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["width"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("report"), story())


@needs_chromium
@pytest.mark.browser
class TestInABrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_opens_without_network_or_complaint(self, browser: Any, report: Path, scheme: str) -> None:
        opened = Opened(browser, report, scheme=scheme)
        assert opened.requests == [report.as_uri()]
        assert opened.complaints == []
        assert opened.page.locator(".plot .main-svg").count() >= 5
        assert opened.page.get_attribute("html", "data-theme") == scheme

    def test_the_toggle_colours_the_plots_again(self, browser: Any, report: Path) -> None:
        opened = Opened(browser, report)
        light, dark = (
            f'[data-figure="power-host"] .scatterlayer .js-line[style*="rgb({rgb})"]'
            for rgb in ("0, 114, 178", "90, 180, 240")
        )
        count = opened.page.locator(light).count()
        assert count == 2  # before and after the gap
        opened.page.click("#theme")
        opened.page.locator(dark).first.wait_for(state="attached")
        assert (opened.page.locator(light).count(), opened.page.locator(dark).count()) == (0, count)
        assert opened.complaints == []

    def test_zooming_one_plot_zooms_all_and_a_double_click_goes_back(
        self, browser: Any, report: Path
    ) -> None:
        opened = Opened(browser, report)
        x, y, width = opened.middle_of("power-host")
        opened.page.mouse.move(x - width / 4, y)
        opened.page.mouse.down()
        opened.page.mouse.move(x + width / 4, y, steps=4)
        opened.page.mouse.up()
        others = ("cpu.cpu-busy", "thermal.thermal-temperature")
        opened.page.wait_for_function(f"{AXIS % others[1]}.range[0] > 2")
        low, high = opened.range("power-host")
        assert (low, high) == (pytest.approx(3, abs=0.1), pytest.approx(9, abs=0.1))
        assert all(opened.range(other) == [low, high] for other in others)
        assert opened.range("tokens")[1] > 90  # its axis is not time
        opened.page.mouse.dblclick(x, y)
        opened.page.wait_for_function(f"{AXIS % others[1]}.range[0] === 0")
        assert opened.range("power-host") == opened.range(others[0])

    def test_hovering_one_plot_shows_the_same_moment_in_the_others(self, browser: Any, report: Path) -> None:
        opened = Opened(browser, report)
        x, y, _ = opened.middle_of("power-host")
        last = opened.page.locator('[data-figure="cpu.cpu-busy"] .hoverlayer .legendtitletext')
        while (
            not last.count()
        ):  # a plot that is still being drawn hears no mouse; pytest's time limit ends this
            opened.page.mouse.move(x - 1, y)
            opened.page.mouse.move(x, y)
            opened.page.wait_for_timeout(50)
        for figure in ("power-host", "cpu.cpu-busy"):
            label = opened.page.locator(f'[data-figure="{figure}"] .hoverlayer .legendtitletext').first
            assert float(label.text_content()) == pytest.approx(6.0, abs=0.06)
        assert opened.complaints == []

    def test_a_phone_scrolls_down_and_not_sideways(self, browser: Any, report: Path) -> None:
        opened = Opened(browser, report, width=390)
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 390

    def test_every_table_has_a_caption_and_every_plot_a_name(self, browser: Any, report: Path) -> None:
        page = Opened(browser, report).page
        assert page.locator("table").count() == page.locator("table > caption").count() >= 4
        assert page.locator(".plot").count() == page.locator(".plot[role=img][aria-label]").count()
        assert page.locator("h1").count() == 1
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
        assert all(b <= a + 1 for a, b in itertools.pairwise(levels))

    def test_a_hostile_run_is_only_text(self, browser: Any, tmp_path: Path) -> None:
        opened = Opened(browser, made(tmp_path, hostile()))
        assert opened.page.evaluate("window.hacked") is None
        assert opened.complaints == []
        assert len(opened.requests) == 1
        assert HOSTILE in opened.page.inner_text("main")

    def test_a_script_that_got_in_all_the_same_would_not_run(
        self, browser: Any, report: Path, tmp_path: Path
    ) -> None:
        page = tmp_path / "broken.html"
        page.write_text(report.read_text().replace("</main>", "<script>window.hacked=1</script></main>", 1))
        opened = Opened(browser, page)
        assert opened.page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in complaint for complaint in opened.complaints)

    def test_print_is_light_and_comes_back(self, browser: Any, report: Path) -> None:
        opened = Opened(browser, report, scheme="dark")
        opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert opened.page.get_attribute("html", "data-theme") == "light"
        opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert opened.page.get_attribute("html", "data-theme") == "dark"
        assert len(opened.page.pdf()) > 50_000

    def test_a_million_samples_open_at_once(self, browser: Any, tmp_path: Path) -> None:
        page = made(tmp_path, story(), hz=100_000.0)
        assert page.stat().st_size < 7_000_000
        rail = traces(page, "power-host")["meter.power/main, account"]
        assert len(rail["x"]) < 4100
        opened = Opened(browser, page)
        assert opened.complaints == []
        assert opened.page.evaluate("performance.now()") < 15_000  # about 2 s where nothing else runs


def test_the_run_is_left_as_it_was(tmp_path: Path) -> None:
    run = write(tmp_path / "run", story())
    before = {p.name: p.stat().st_mtime_ns for p in run.path.iterdir()}
    build(Run(run.path), tmp_path / "r.html")
    assert {p.name: p.stat().st_mtime_ns for p in run.path.iterdir()} == before


class TestClocks:
    def test_each_reading_is_drawn_as_what_it_leaves_for_the_truth(self, tmp_path: Path) -> None:
        times = itertools.chain([10**10], itertools.repeat(10**10 + SECONDS * 10**9))
        run = pack(record(tmp_path / "archive", now=times.__next__).path)
        page = build(run, tmp_path / "report.html")
        found = traces(page, "clock-usb.usb")
        bars = found["both sides"]["y"].reshape(-1, 3)[:, :2]
        assert len(bars) == 2 * SECONDS
        np.testing.assert_allclose(
            bars[:, 1] - bars[:, 0], 2e-6, atol=2e-9
        )  # 1 us of round trip, 1 us of tick
        assert (bars[:, 0] < 1e-8).all()
        assert (bars[:, 1] > -1e-8).all()  # the map runs through all of them
        (row,) = [r for r in run.table("clocks").to_pylist() if r["clock"] == "usb.usb"]
        assert np.nanmax(found["bound: the truth is here"]["y"]) == pytest.approx(row["bound_ns"] / 1e9)
        assert "8 readings; drift" in page.read_text()

    def test_one_way_readings_point_to_the_truth_and_segments_change_over(self) -> None:
        facts = {"clock_of": "m.c", "epoch_of": 0, "resolution": 0, "tick_ns": 1.0}
        told = [
            {"count": 100, "not_after": 1150},
            {"count": 300, "not_before": 1290},
            {"count": 300, "not_after": 5320},
        ]
        readings = pa.Table.from_pylist([{"tick": 0, **facts, **row} for row in told], READINGS.schema)
        segment = {
            "clock": "m.c",
            "epoch": 0,
            "tick0": 0,
            "offset_ns": 0,
            "drift_ppm": 0.0,
            "start_ns": 0,
            "stop_ns": 200,
        }
        rows = [
            segment | {"segment": 0},
            segment | {"segment": 1, "offset_ns": 10, "start_ns": 250, "stop_ns": 900},
        ]
        at, low, high = left_for_truth(rows, readings, readings, rows, 1000)
        np.testing.assert_allclose(at * 1e9, [100, 310, 310])
        np.testing.assert_allclose(low * 1e9, [np.nan, -20, np.nan])
        np.testing.assert_allclose(high * 1e9, [50, np.nan, 4010])

    def test_limits_on_another_clock_are_placed_by_that_clocks_map(self) -> None:
        facts = {"tick": 0, "epoch_of": 0, "kind": "round_trip"}
        board = {
            **facts,
            "clock_of": "m.board",
            "count": 0,
            "not_before": 0,
            "not_after": 9,
            "tick_ns": 1000.0,
            "resolution": 1,
        }
        meter = {**facts, "clock_of": "m.c", "count": 500, "not_before": 40, "not_after": 60, "tick_ns": 1.0, "resolution": 0,
                 "against": "m.board", "against_epoch": 0}  # fmt: skip
        readings = pa.Table.from_pylist([board, meter], READINGS.schema)
        line = {"epoch": 0, "segment": 0, "tick0": 0, "drift_ppm": 0.0, "start_ns": 0, "stop_ns": 10**6}
        rows = [line | {"clock": "m.board", "offset_ns": 2_000}, line | {"clock": "m.c", "offset_ns": 51_500}]
        at, low, high = left_for_truth(rows[1:], readings.slice(1), readings, rows, 1000)
        np.testing.assert_allclose([at[0] * 1e9, low[0] * 1e9, high[0] * 1e9], [52_000, -10_000, 10_000])

    def test_of_many_readings_the_tightest_are_drawn(self) -> None:
        n, rng = 20_000, np.random.default_rng(1)
        slack = rng.exponential(1e6, n).astype(np.int64)
        slack[7_777] = 1
        at = np.arange(n) * MS
        data = {
            "tick": np.zeros(n, int), "clock_of": ["m.c"] * n, "epoch_of": np.zeros(n, int), "count": at,
            "resolution": np.ones(n, int), "not_before": at - slack, "not_after": at + slack,
            "kind": ["round_trip"] * n, "tick_ns": np.ones(n), "rho_ppm": np.zeros(n), "same_rate": [False] * n,
        }  # fmt: skip
        row = {"clock": "m.c", "kind": "two_way", "epoch": 0, "segment": 0, "tick0": 0, "offset_ns": 0, "bound_ns": 1000,
               "drift_ppm": 0.0, "drift_bound_ppm": 1.0, "start_ns": 0, "stop_ns": n * MS}  # fmt: skip
        clocks = pa.Table.from_pylist([row], SCHEMAS["clocks"])
        readings = pa.table(
            {f.name: data.get(f.name, pa.nulls(n, f.type)) for f in READINGS.schema}, READINGS.schema
        )
        ((panel, note),) = residuals(readings, clocks, 0, n / 1e3)
        assert "20,000 readings, 1,200 drawn" in note
        drawn_at = _array(panel.figure["data"][1]["x"])[::3]
        assert len(drawn_at) == 1200
        assert 7.777 in drawn_at.round(6).tolist()

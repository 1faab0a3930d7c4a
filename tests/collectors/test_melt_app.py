"""What MELT's apps wrote: conversations of both generations of times, thermal states, and damage with its place."""

from __future__ import annotations

import json

import pytest

from melt_stream.analysis.archive import connect
from melt_stream.cli._app import run as cli
from melt_stream.collectors._melt_app import Span, conversations, thermal_states
from melt_stream.collectors.melt_app_import import MeltAppImport
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Hub


def question(start, duration=3.5, **more):
    return {
        "time": {"start": start, "duration": duration}, "input": "Hi", "output": "Hello", "input_tokens": 9, "output_tokens": 20,
    } | more  # fmt: skip


def talk(*questions, model="gemma-2b", start=1709741000.25):
    return {
        "modelName": model, "modelLoadTime": {"start": start, "duration": 2.5}, "questionRecords": list(questions),
    }  # fmt: skip


def write(folder, talks, thermals=None, name="measurements_iter0"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(talks))
    if thermals is not None:
        (folder / f"{name}_thermals.json").write_text(json.dumps(thermals))
    return folder


async def rows(path, **fields):
    hub = Hub(now=lambda: 0)
    importer = MeltAppImport(path=path, **fields)
    await importer.collect(hub.outlet("it"))
    found = {}
    for batch in hub.take():
        found.setdefault(batch.source.stream.name, []).extend(batch.data.to_pylist())
    return importer, found


def test_times_are_seconds_or_iso_texts_and_no_digit_is_lost(tmp_path):
    old = talk(question("2024-03-06T16:03:24Z"), start="2024-03-06T16:03:20.250Z")
    (one, two) = conversations(
        write(tmp_path, [talk(question(1709741004.123456789)), old]) / "measurements_iter0.json"
    )
    assert one.load == Span(1_709_741_000_250_000_000, 1_709_741_002_750_000_000)
    assert abs(one.questions[0].span.start - 1_709_741_004_123_456_789) < 500  # json.dumps kept a float of it
    assert two.load == Span(1_709_741_000_250_000_000, 1_709_741_002_750_000_000)
    assert two.questions[0].span == Span(1_709_741_004_000_000_000, 1_709_741_007_500_000_000)


async def test_a_question_is_a_window_with_its_tokens_and_the_load_comes_before(tmp_path):
    stats = {"tok_per_s": 11.5}
    folder = write(
        tmp_path, [talk(question(1709741004, runtimeStats=stats), question(1709741010))],
        [{"timestamp": 1709741006.5, "state": "fair"}, {"timestamp": 1709741001, "state": "nominal"}, {"timestamp": 1709741009, "state": "odd"}],
    )  # fmt: skip
    importer, found = await rows(folder)
    assert importer.start_utc_ns == 1_709_741_000_250_000_000
    events = found["events"]
    assert [(row["kind"], row["tick"] / 1e9, row["request"]) for row in events] == [
        ("load_start", 0.0, None), ("load_end", 2.5, None), ("window_start", 3.75, 1), ("window_end", 7.25, 1),
        ("window_start", 9.75, 2), ("window_end", 13.25, 2),
    ]  # fmt: skip
    assert events[2]["name"] == "iter0 conversation 0 question 0"
    assert json.loads(events[3]["detail"]) == {
        "model": "gemma-2b", "input_tokens": 9, "output_tokens": 20, "runtime_stats": stats,
    }  # fmt: skip
    assert {row["text"] for row in events} == {None}
    assert [(row["tick"] / 1e9, row["state"], row["level"]) for row in found["app_thermal"]] == [
        (0.75, "nominal", 0), (6.25, "fair", 1), (8.75, "odd", None),
    ]  # fmt: skip
    _, kept = await rows(folder, keep_text=True)
    assert [row["text"] for row in kept["events"] if row["kind"] == "window_end"] == ["Hello", "Hello"]


async def test_a_folder_has_several_repetitions(tmp_path):
    write(tmp_path, [talk(question(1709742004), start=1709742000)], name="measurements_iter1")
    _, found = await rows(write(tmp_path, [talk(question(1709741004))]))
    names = [row["name"] for row in found["events"] if row["kind"] == "window_start"]
    assert names == ["iter0 conversation 0 question 0", "iter1 conversation 0 question 0"]
    assert len({row["request"] for row in found["events"] if row["request"]}) == 2


@pytest.mark.parametrize(
    ("talks", "expected"),
    [
        ({}, r"iter0\.json: expected a list of at most 100000, got dict"),
        ([5], r"iter0\.json: \[0\]: expected an object, got int"),
        ([talk({"time": 5})], r"\[0\]\.questionRecords\[0\]\.time: expected an object, got int"),
        ([talk(question("soonT"))], r"questionRecords\[0\]\.time\.start: expected a date and time of ISO 8601, got 'soonT'"),
        ([talk(question(-5))], r"time\.start: expected a number of seconds from 0 to"),
        ([talk(question(5, duration=None))], r"time\.duration: expected a number of seconds"),
        ([], r"expected conversations of MELT's app, got none"),
    ],
)  # fmt: skip
async def test_damage_is_told_with_its_place(tmp_path, talks, expected):
    with pytest.raises(DataError, match=expected):
        await rows(write(tmp_path, talks))


async def test_thermal_states_are_checked_and_an_empty_folder_is_named(tmp_path):
    write(tmp_path, [talk()], [{"timestamp": "x"}])
    with pytest.raises(DataError, match=r"_thermals\.json: \[0\]\.timestamp: expected a number of seconds"):
        thermal_states(tmp_path / "measurements_iter0_thermals.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"expected files measurements_iter\*\.json, got none"):
        await rows(tmp_path / "empty")


def test_imported_by_the_command_it_answers_sql(tmp_path):
    folder = write(tmp_path / "app", [talk(question(1709741004), question(1709741010))])
    assert cli(("import", "melt-app", str(folder), "--archive", str(tmp_path / "archive"))) in (0, 3)
    with connect(tmp_path / "archive") as database:
        found = database.execute(
            "SELECT phase, count(*), round(sum(stop_ns - start_ns) / 1e9, 3) FROM phases GROUP BY phase ORDER BY phase"
        ).fetchall()
    assert ("window", 2, 7.0) in found
    assert ("load", 1, 2.5) in found

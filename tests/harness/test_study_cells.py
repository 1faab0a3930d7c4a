"""What a study's file means: the cells that its axes span, what each is, and what is wrong with a file that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.errors import ConfigError
from melt_stream.harness.study import Cell, is_study, read, slots, study_of
from melt_stream.harness.study.axes import axis, rule, text_of
from melt_stream.harness.study.cells import cell_id, spanned
from melt_stream.harness.study.overlay import laid, leaves, nested, without
from melt_stream.harness.study.planning import plan_of
from melt_stream.harness.study.rules import Order, Rules
from tests.harness.studies import BASE, shell, study

WORDS = st.sampled_from(["a", "b", "c", "d"])
TREES = st.recursive(
    st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(WORDS, inner, max_size=3), max_leaves=8
)
TABLES = st.dictionaries(WORDS, TREES, max_size=3)
TWO = {
    "hz": {"key": "collectors.cpu.hz", "values": [5.0, 10.0]},
    "name": {"x": shell("exit 1"), "y": shell("exit 2")},
}


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    def get(key: str) -> Any:
        value: Any = table
        for part in key.split("."):
            value = value[part]
        return value

    return {key: get(key) for key in leaves(table)}


@given(TABLES, TABLES)
def test_what_is_laid_over_stands_and_nothing_else_changes(base, over):
    before = deepcopy((base, over))
    made, above = laid(base, over), flat(over)
    for key, value in above.items():
        if value != {}:  # an empty table adds a table where there is none, and takes nothing away
            assert flat(made)[key] == value
    for key, value in flat(base).items():
        touched = any(
            f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in above
        )
        assert touched or flat(made)[key] == value
    assert (base, over) == before


@given(TABLES)
def test_quoted_dotted_keys_mean_the_same_as_tables(table):
    quoted = {key: value for key, value in flat(table).items() if value != {}}
    wanted = {key: value for key, value in flat(table).items() if value != {}}
    assert flat(nested(quoted, "here")) == wanted or not wanted


@given(TABLES, st.data())
def test_what_is_taken_away_is_gone_and_nothing_else(table, data):
    if not (keys := list(leaves(table))):
        return
    key = data.draw(st.sampled_from(keys))
    made = without(table, key, "here")
    parents = {key[:at] for at, letter in enumerate(key) if letter == "."}
    assert {k: v for k, v in flat(made).items() if k not in parents} == {
        k: v for k, v in flat(table).items() if k != key
    }


AXES = st.dictionaries(
    WORDS, st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
)


@given(AXES, st.data())
def test_cells_are_all_choices_but_those_left_out(axes, data):
    made = [axis(name, {"key": "seconds", "values": values}, "here") for name, values in axes.items()]
    left_out = {name: data.draw(st.sampled_from(values)) for name, values in axes.items()}
    kept = {name: data.draw(st.lists(st.sampled_from(values), min_size=1)) for name, values in axes.items()}
    everything = list(spanned(made, [], []))
    assert len({tuple(points.items()) for points in everything}) == math.prod(map(len, axes.values()))
    without_one = list(spanned(made, [], [rule(left_out, made, "here")]))
    assert [p for p in everything if p not in without_one] == [{k: str(v) for k, v in left_out.items()}]
    some = list(spanned(made, [rule(kept, made, "here")], []))
    assert len(some) == math.prod(len(set(values)) for values in kept.values())
    assert all(int(points[name]) in values for points in some for name, values in kept.items())


@given(AXES)
def test_cells_of_other_points_have_other_ids(axes):
    made = [axis(name, {"key": f"account.{name}", "values": values}, "here") for name, values in axes.items()]
    laid_over = []
    for points in spanned(made, [], []):
        configuration: dict[str, Any] = {}
        for one in made:
            configuration = laid(configuration, one.points[points[one.name]])
        laid_over.append(configuration)
    assert len({cell_id(configuration, Rules()) for configuration in laid_over}) == len(laid_over)


@given(TABLES)
def test_an_id_does_not_depend_on_the_order_of_keys(table):
    def turned(value: Any) -> Any:
        return {k: turned(v) for k, v in reversed(value.items())} if isinstance(value, dict) else value

    assert cell_id(table, Rules()) == cell_id(turned(table), Rules())


def test_ids_do_not_depend_on_the_order_of_keys_or_on_labels_and_do_on_all_else():
    def of(table=None, **more):
        return study(table or {}, **more).cells[0].id

    assert (
        of()
        == of()
        == of(note="x", tags=["y"])
        == of({"repeat": 5, "timeout_s": 3, "retries": 2, "warmup": 1})
    )
    swapped = {
        "workloads": BASE["workloads"],
        "collectors": {"cpu": dict(reversed(BASE["collectors"]["cpu"].items()))},
    }
    assert of(**swapped) == of()
    others = [
        of(name="other"), of(seconds=3), of(collectors={"cpu": {"hz": 21.0}}),
        of({"before": {"a": {"run": ["true"]}}}), of({"after": {"a": {"run": ["true"]}}}), of({"cooldown": {"seconds": 3}}),
        of(workloads={"command": {"arguments": ["/bin/sh", "-c", "exit 0 "]}}),
    ]  # fmt: skip
    assert len({of(), *others}) == len(others) + 1


def test_an_id_is_the_same_today_as_yesterday():
    """Archives hold ids: a change of this one makes every study of every archive begin again."""
    assert study({}).cells[0].id == "428f6608c59163b4"


def test_points_override_replace_and_remove():
    table = {
        "axes": {
            "device": {
                "laptop": {},
                "board": {
                    "remove": ["collectors.cpu"],
                    "device": {"board": {"local": "/bin/sh"}},
                    "collectors": {"thermal": {"device": "board"}},
                    "study": {
                        "before": {"mode": {"run": ["nvpmodel", "-m", "2"], "device": "board"}},
                        "repeat": 2,
                    },
                },
            }
        }
    }
    laptop, board = study(table).cells
    assert list(plan_of(laptop.configuration, "").collectors) == ["cpu"]
    assert list(plan_of(board.configuration, "").collectors) == ["thermal"]
    assert board.rules.commands("before", "")["mode"].run == ["nvpmodel", "-m", "2"]
    assert (laptop.rules.repeat, board.rules.repeat) == (1, 2)


def test_only_names_cells():
    one = study({"axes": TWO})
    assert [c.label for c in one.only(["hz=5.0"])] == ["hz=5.0 name=x", "hz=5.0 name=y"]
    assert [c.label for c in one.only(["hz=5.0", "hz=10.0", "name=y"])] == ["hz=5.0 name=y", "hz=10.0 name=y"]
    for said, wrong in (
        ("hz", "expected axis=point"),
        ("hzz=5.0", "did you mean 'hz'"),
        ("hz=5", "did you mean '5.0'"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            one.only([said])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"repat": 3}, r"mine\.toml\.study\.repat: expected a key of StudyTable, got 'repat'; did you mean 'repeat'"),
        ({"order": "random"}, r"study\.order: .*got 'random'"),
        ({"repeat": 0}, r"study\.repeat: .*greater than 0"),
        ({"axes": {"hz": {"key": "collectors.cpu.hzz", "values": [1.0]}}}, r"cell hz=1\.0: collectors\.cpu\.hzz: .*did you mean 'hz'.* \(axis hz, point 1\.0\)"),
        ({"axes": {"hz": {"key": "collector.cpu.hz", "values": [1.0]}}}, r"cell hz=1\.0\.collector: expected a key of Recipe.*'collectors'"),
        ({"axes": {"hz": {"key": "collectors.cpu.hz", "values": [1.0, -1.0]}}}, r"collectors\.cpu\.hz: .*greater than 0, got -1\.0 \(axis hz, point -1\.0\)"),
        ({"axes": {"hz": {"key": "collectors.cpu.hz", "values": [1.0, 1.0]}}}, r"axes\.hz\.values: expected each value once, got '1\.0' twice"),
        ({"axes": {"hz": {"key": "collectors.cpu.hz", "valus": [1.0]}}}, r"axes\.hz\.valus: expected key and values alone"),
        ({"axes": {"hz": {"values": [1.0]}}}, r"axes\.hz\.key: expected a dotted key.*got None"),
        ({"axes": {"hz": {}}}, r"axes\.hz: expected at least one point"),
        ({"axes": {"hz": {"fast": 3}}}, r"axes\.hz\.fast: expected a table of overrides, got 3"),
        ({"axes": {"hz": {"fast": {"remove": ["collectors.cpuu"]}}}}, r"axis hz, point fast.*got 'cpuu'; did you mean 'cpu'"),
        ({"axes": {"hz": {"fast": {"study": {"order": "fixed"}}}}}, r"axis hz, point fast: .*may override, got 'order'"),
        ({"axes": {"hz": {"fast": {"a.b": 1, "a": 2}}}}, r"axes\.hz\.fast: expected each key once, got 'a' twice"),
        ({"axes": {"Hz": {"fast": {}}}}, r"expected an axis's name"),
        ({"axes": {"hz": {"slow": {}, "fast": {}}}}, r"expected cells that differ, .* hz=slow and hz=fast"),
        ({"axes": TWO, "exclude": [{"nam": "x"}]}, r"exclude\[0\]: expected an axis, got 'nam'; did you mean 'name'"),
        ({"axes": TWO, "exclude": [{"hz": 5}]}, r"exclude\[0\]\.hz: expected a point of the axis hz, got '5'; did you mean '5\.0'"),
        ({"axes": TWO, "exclude": [{}]}, r"expected a cell, got none"),
        ({"before": {"mode": {"run": []}}}, r"study\.before\.mode\.run: .*at least 1 item"),
        ({"before": {"mode": {"run": ["a"], "device": "bord"}}}, r"expected a device of the recipe for \['a'\], got 'bord'"),
        ({"before": {"mode": "reboot"}}, r"study\.before\.mode: expected a table"),
        ({"cooldown": {"until_c": 40.0}}, r"study\.cooldown: expected collector and until_c together"),
        ({"cooldown": {"collector": "thermal", "until_c": 40.0}}, r"expected a collector of the recipe, got 'thermal'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_anything_starts(table, said):
    with pytest.raises(ConfigError, match=said):
        study(table)


def test_a_file_is_a_study_by_its_table_and_is_called_after_itself(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        '[collectors.cpu]\n[study]\n[study.axes.rate]\nslow = { "collectors.cpu.hz" = 1.0 }\nfast.collectors.cpu.hz = 50.0\n'
    )
    one = read(path)
    assert one.name == "sweep"
    assert [plan_of(cell.configuration, "").collectors["cpu"].hz for cell in one.cells] == [1.0, 50.0]
    assert not is_study({"collectors": {}})
    with pytest.raises(ConfigError, match=r"expected a study's name .* got '\.\./x'"):
        study_of({"name": "../x", "collectors": {"cpu": {}}, "study": {}}, path)
    with pytest.raises(ConfigError, match=r"expected a study's table \[study\], got 3"):
        study_of({"study": 3}, path)


def cells_of(count: int, **rules: Any) -> list[Cell]:
    return [Cell(f"{n:04x}", {"n": str(n)}, {}, Rules(**rules), "here") for n in range(count)]


@given(
    st.integers(1, 4), st.integers(0, 2), st.integers(1, 4), st.integers(), st.sampled_from(get_args(Order))
)
def test_every_order_has_each_run_once_and_warm_ups_before_their_cell(count, warmup, repeat, seed, order):
    cells = cells_of(count, warmup=warmup, repeat=repeat)
    made = slots(cells, order, seed)
    assert len({slot.key for slot in made}) == len(made) == count * (repeat + warmup)
    assert made == slots(cells, order, seed)
    for cell in cells:
        mine = [slot.warmup for slot in made if slot.cell is cell]
        assert mine == sorted(mine, reverse=True)
    repetitions = [slot.repetition for slot in made if not slot.warmup]
    if order == "interleaved":
        assert repetitions == sorted(repetitions)
    if order == "fixed":
        ids = [slot.cell.id for slot in made]
        assert ids == sorted(ids)


def test_another_seed_shuffles_otherwise_and_growing_keeps_the_order():
    cells = cells_of(8, repeat=2)
    orders = {tuple(slot.key for slot in slots(cells, "shuffled", seed)) for seed in range(5)}
    assert len(orders) == 5
    some = [slot.key for slot in slots(cells[:5], "shuffled", 1)]
    assert [slot.key for slot in slots(cells, "shuffled", 1) if slot.key in some] == some


@pytest.mark.parametrize(
    ("value", "name"), [(4, "4"), (0.5, "0.5"), (True, "true"), ("q4_0", "q4_0"), ([0, 1], "[0, 1]")]
)
def test_a_value_names_its_point(value, name):
    assert text_of(value) == name

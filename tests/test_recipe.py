"""Recipes are checked strictly, and wrong keys are named, before anything starts."""

from pathlib import Path

import pytest

from melt_stream import recipe
from melt_stream.analysis import archive
from melt_stream.errors import ConfigError
from melt_stream.harness.study import is_study, study_of

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))
"""Recipes, and studies, all of whose cells are planned when they are read."""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_can_be_planned(path: Path):
    data = recipe.load_toml(path)
    if is_study(data):
        assert study_of(data, path).cells
    else:
        assert recipe.plan(recipe.parse(data, str(path)), str(path)).collectors


def test_an_entry_makes_its_plug_in_with_its_kind_and_device(tmp_path: Path):
    text = '[collectors.left]\nkind = "cpu"\nhz = 5.0\ndevice = "board"\n[collectors.cpu]\n'
    plan = recipe.plan(recipe.read(written(tmp_path, text)), "mine.toml")
    assert plan.collectors["left"].hz == 5.0
    assert type(plan.collectors["left"]) is type(plan.collectors["cpu"])
    assert plan.devices == {"left": "board", "cpu": "host"}


def test_what_a_workload_involves_is_measured_and_conditions_are_kept_as_they_are(tmp_path: Path):
    text = (
        '[collectors.cpu]\ndevice = "orin"\n[workloads.command]\narguments = ["true"]\ninvolves = ["orin"]\n'
        "[conditions]\nambient_c = 23\n[conditions.orin]\nfan = true\n"
    )
    plan = recipe.plan(recipe.read(written(tmp_path, text)), "mine.toml")
    assert plan.workloads["command"].arguments == ["true"]
    assert plan.recipe.conditions == {"ambient_c": 23, "orin": {"fan": True}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("basline_s = 2\n", "mine.toml.basline_s: expected a key of Recipe, got 'basline_s'; did you mean 'baseline_s'?"),
        (
            '[workloads.command]\narguments = ["true"]\ninvolves = ["orin"]\n',
            "workloads.command.involves: expected a list of devices that collectors measure, out of [], got ['orin']",
        ),
        ('[collectors.cpu]\ninvolves = ["host"]\n', "collectors.cpu.involves: expected a key of Cpu, got 'involves'"),
        ("[conditions]\nambient_c = [1]\n", "mine.toml.conditions.ambient_c"),
        ("seconds = 0\n", "mine.toml.seconds: input should be greater than 0, got 0"),
        ('seconds = "ten"\n', "mine.toml.seconds: input should be a valid number, got 'ten'"),
        ("[collectors.cpu]\nhzz = 1\n", "collectors.cpu.hzz: expected a key of Cpu, got 'hzz'; did you mean 'hz'?"),
        ("[collectors.cpu]\nhz = -1\n", "collectors.cpu.hz: input should be greater than 0, got -1"),
        ("[collectors.cpuu]\n", "expected a collector's name, got 'cpuu'; did you mean 'cpu'?"),
        ("[collectors.tokens]\n", "expected an instance name [a-z][a-z0-9_]* that is no SQL view's, got 'tokens'"),
        ("[collectors.Left]\nkind = 'cpu'\n", "that is no SQL view's, got 'Left'"),
        ("[collectors.a]\nkind='cpu'\n[workloads.a]\nkind='llama'\n", "got 'a' as a collector and as a workload"),
        ("[collectors\n", "mine.toml: expected TOML, got Expected ']'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_path_in_the_file(tmp_path: Path, text: str, said: str):
    with pytest.raises(ConfigError) as caught:
        recipe.plan(recipe.read(written(tmp_path, text)), "mine.toml")
    assert said in str(caught.value).replace(str(tmp_path) + "/", "")


def test_no_file_and_no_text(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"expected a recipe at .*/absent.toml, got No such file"):
        recipe.read(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin.toml: expected UTF-8 text, got a byte 0xe9 at 8"):
        recipe.read(tmp_path / "latin.toml")


def test_no_instance_may_be_called_as_a_view():
    assert set(archive.VIEWS) <= recipe.VIEWS

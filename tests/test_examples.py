"""Every example is a recipe or a study whose plan can be made; what it needs of devices and models may be absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from melt_stream import recipe
from melt_stream.harness.study import is_study, study_of
from melt_stream.harness.zoo import references

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_its_plan_can_be_made(path, monkeypatch, tmp_path):
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path))
    data = recipe.load_toml(path)
    if is_study(data):
        assert study_of(data, path).cells
        return
    made = recipe.parse(data, str(path))
    if not references.named(made):
        assert recipe.plan(made, str(path)).recipe == made


def test_there_are_examples_of_every_kind():
    names = {path.stem for path in EXAMPLES}
    assert {"quickstart", "android", "jetson", "study", "study_pixel_orin"} <= names

"""The recipes in docs/conditions.md are recipes, and its table of fields is complete."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from melt_stream import recipe
from melt_stream.collectors.phone_state import PhoneState
from melt_stream.harness.placed import placed, places

TEXT = (Path(__file__).parents[2] / "docs/conditions.md").read_text()
RECIPES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("text", RECIPES)
def test_a_documented_recipe_is_one(text):
    made = recipe.plan(recipe.parse(tomllib.loads(text), "docs"), "docs")
    plan = placed(made, places(made.recipe))
    assert all(one.order for one in plan.collectors.values())


def test_every_field_of_a_phone_is_in_the_table():
    assert len(RECIPES) == 3
    own = {field.name for field in fields(PhoneState) if field.init} - {"through", "patience_s"}
    cells = " ".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))
    assert own <= set(re.findall(r"`(\w+)`", cells))

import dataclasses

import pytest

from melt_stream import recipe as recipes
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.zoo import registry
from melt_stream.harness.zoo.pull import pull
from melt_stream.harness.zoo.references import Reference, planned, there
from melt_stream.harness.zoo.store import Store
from tests.harness.zoo.parts import write_gguf


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "zoo")
    text = f'[tiny]\nfamily = "T"\nparameters = 10\ncontext = 20\nlicence = {{ name = "MIT" }}\nsource = {{ path = "{write_gguf(tmp_path / "tiny.gguf")}" }}'
    pull(store, registry.parse(text, "test")["tiny"])
    return store


def recipe(model, **more):
    return recipes.parse({"workloads": {"llama": {"prompts": ["hi"], "model": model, **more}}}, "r.toml")


def test_a_reference_becomes_a_path_and_the_recipe_stays_as_it_was_written(store):
    made = store.get("tiny", "original")
    asked = recipe("zoo:tiny")
    plan = planned(asked, "r.toml", store)
    assert plan.workloads["llama"].model == str(made.path)
    assert plan.recipe == asked
    assert plan.models["llama"]["sha256"] == made.sha256
    assert plan.models["llama"]["bits_per_weight"] == made.header["bits_per_weight"]
    assert planned(recipe("zoo:tiny/f16"), "r.toml", store).workloads["llama"].model == str(made.path)


def test_what_is_no_reference_stays(store):
    plan = planned(recipe("/models/x.gguf"), "r.toml", store)
    assert (plan.workloads["llama"].model, plan.models) == ("/models/x.gguf", {})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            "zoo:tiny/Q4_0",
            r"r\.toml: llama\.model: zoo:tiny/Q4_0: .*try: melt-stream zoo quantize tiny --to Q4_0",
        ),
        ("zoo:qwen3-0.6b/Q4_0", r"try: melt-stream zoo pull qwen3-0\.6b"),
        ("zoo:", "expected zoo:NAME or zoo:NAME/VARIANT"),
        ("zoo:tiny/", "expected zoo:NAME or zoo:NAME/VARIANT"),
        ("zoo:../../etc", "expected zoo:NAME or zoo:NAME/VARIANT"),
        ("zoo:tiny/../..", "expected zoo:NAME or zoo:NAME/VARIANT"),
        ("zoo:..", "expected zoo:NAME or zoo:NAME/VARIANT"),
    ],
)
def test_what_is_not_there_says_what_to_do_and_nothing_is_pulled(store, model, says):
    with pytest.raises(ConfigError, match=says):
        planned(recipe(model), "r.toml", store)


def test_a_file_of_another_size_is_not_run(store):
    made = store.get("tiny", "original")
    made.path.chmod(0o644)
    made.path.write_bytes(b"cut")
    with pytest.raises(DataError, match="bytes, got 3; try `melt-stream zoo rm tiny`"):
        there(store, "zoo:tiny")


def test_a_reference_says_its_name():
    assert [Reference.parse(text).name for text in ("zoo:a", "a/Q4_0", "zoo:a/mlc-q4f16_1")] == [
        "a",
        "a/Q4_0",
        "a/mlc-q4f16_1",
    ]
    assert dataclasses.astuple(Reference.parse("zoo:a")) == ("a", "original")

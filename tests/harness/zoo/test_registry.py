import pytest

from melt_stream.errors import ConfigError
from melt_stream.harness.zoo import registry

GOOD = """
[tiny]
family = "T"
parameters = 10
context = 20
licence = { name = "MIT" }
source = { path = "/x.gguf" }
"""


def test_the_papers_seven_and_small_models_are_there_with_their_terms():
    models = registry.read()
    paper = [name for name, model in models.items() if model.about.paper]
    assert sorted(paper) == [
        "gemma-2b", "gemma-7b", "llama-2-13b", "llama-2-7b", "mistral-7b", "tinyllama-1.1b", "zephyr-3b",
    ]  # fmt: skip
    assert {"smollm2-135m", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-270m", "phi-3.5-mini"} <= models.keys()
    assert all(model.licence.url for model in models.values())
    gated = {model.source.hub for model in models.values() if model.licence.gated}
    assert gated
    assert all(repository.startswith(("meta-llama/", "google/")) for repository in gated)


def test_a_later_file_replaces_an_entry(tmp_path):
    (own := tmp_path / "own.toml").write_text(GOOD.replace("tiny", "smollm2-135m"))
    assert registry.read([own])["smollm2-135m"].about.family == "T"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("family", "famly"), r"w: tiny\.famly: .*did you mean 'family'"),
        (("parameters = 10", "parameters = 0"), r"w: tiny\.parameters: .*greater than 0"),
        (("parameters = 10", 'parameters = "10"'), r"w: tiny\.parameters: "),
        (("context = 20\n", ""), r"w: tiny: expected 'context'"),
        (('name = "MIT"', 'nam = "MIT"'), r"w: tiny\.licence\.nam: .*did you mean 'name'"),
        (('licence = { name = "MIT" }', 'licence = "MIT"'), r"w: tiny\.licence: expected a table, got 'MIT'"),
        (
            ('path = "/x.gguf"', 'path = "/x.gguf", hub = "a/b"'),
            r"w: tiny\.source: expected one of .*got hub, path",
        ),
        (('path = "/x.gguf"', 'hub = "a/b"'), r"w: tiny\.source: files: expected"),
        (('path = "/x.gguf"', 'path = "/x", sha256 = { a = "12" }'), r"w: tiny\.source\.sha256\.a: "),
        (("[tiny]", "[Tiny]"), "w: Tiny: expected a name of a-z"),
        (
            ("[tiny]", "[tiny-1.1b]"),
            r"w: tiny-1\.licence: .*a name with a dot in it needs quotes|in it needs quotes",
        ),
        (("[tiny]", "[tiny"), "w: expected TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_by_its_key(change, says):
    with pytest.raises(ConfigError, match=says):
        registry.parse(GOOD.replace(*change), "w")


def test_an_unknown_model_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'smollm2-135m'"):
        registry.named(registry.read(), "smollm-135m")
    with pytest.raises(ConfigError, match=r"none\.toml: expected a TOML file of models"):
        registry.read([tmp_path / "none.toml"])

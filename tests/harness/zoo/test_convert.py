import json
import sys

import pytest

from melt_stream.errors import ConfigError, DataError, DeviceError
from melt_stream.harness.zoo import external, registry
from melt_stream.harness.zoo.convert import convert
from melt_stream.harness.zoo.pull import pull
from melt_stream.harness.zoo.quantise import source_of
from melt_stream.harness.zoo.store import Store
from tests.harness.zoo.parts import melt, write_gguf

TEXT = """
[folder]
family = "T"
parameters = 10
context = 20
format = "hf"
licence = { name = "MIT" }
source = { path = "FOLDER", files = ["*.json", "*.safetensors"] }
"""


@pytest.fixture
def store(tmp_path):
    (folder := tmp_path / "hf").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    store = Store(tmp_path / "zoo")
    pull(store, registry.parse(TEXT.replace("FOLDER", str(folder)), "test")["folder"])
    return store


@pytest.fixture
def script(tmp_path):
    """Takes llama.cpp's converter's arguments and writes a GGUF file: the real one needs torch and a whole llama.cpp."""
    made = write_gguf(tmp_path / "made.gguf")
    (path := tmp_path / "convert_hf_to_gguf.py").write_text(
        "import argparse, pathlib, shutil\np = argparse.ArgumentParser()\np.add_argument('model')\n"
        "p.add_argument('--outfile')\np.add_argument('--outtype')\na = p.parse_args()\nassert a.outtype == 'f16'\n"
        f"assert (pathlib.Path(a.model) / 'config.json').is_file()\nshutil.copy({str(made)!r}, a.outfile)\n"
    )
    return path


def test_a_folder_becomes_gguf_by_the_converter_and_can_be_quantised(store, script, monkeypatch):
    made = convert(store, "folder", asked=str(script))
    assert (made.variant, made.format, made.quantisation) == ("F16", "gguf", "F16")
    assert made.recipe["tool"] == "convert_hf_to_gguf.py"
    assert made.recipe["version"].startswith("sha256 ")
    assert made.recipe["arguments"] == ["{input}", "--outfile", "{output}", "--outtype", "f16"]
    assert set(made.recipe["inputs"]) == {"config.json", "model.safetensors"}
    monkeypatch.setenv("MELT_STREAM_CONVERT_HF_TO_GGUF", "/gone: what is there needs no converter")
    assert convert(store, "folder") == made
    assert source_of(store, "folder") == made, "what is quantised is made of it"
    with pytest.raises(ConfigError, match="expected one of F16, BF16, F32, Q8_0, got 'Q4_0'"):
        convert(store, "folder", "q4_0")


def test_without_a_converter_it_says_where_to_get_it(store, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    with pytest.raises(
        ConfigError, match=r"expected llama\.cpp's convert_hf_to_gguf\.py, got none; .*--converter"
    ):
        convert(store, "folder")
    with pytest.raises(ConfigError, match="other: expected a pulled folder of safetensors, got nothing"):
        convert(store, "other")


def test_a_converter_that_writes_no_gguf_leaves_nothing(store, tmp_path):
    (bad := tmp_path / "bad.py").write_text("import sys\nopen(sys.argv[3], 'w').write('half')")
    with pytest.raises(DataError, match="expected a GGUF file"):
        convert(store, "folder", asked=str(bad))
    assert [one.name for one in store.artefacts()] == ["folder"]


RECIPE = """
variant = "awq-4"
format = "awq"
command = [PYTHON, "tool.py", "{input}", "{output}", "{0}"]
version = [PYTHON, "-c", "print('tool 1.2')"]
outputs = ["*.bin", "sub/*.json"]
inputs = ["calibration.txt"]
needs_bytes = 1000
"""
TOOL = """
import pathlib, sys
source, output, calibration = map(pathlib.Path, sys.argv[1:])
(output / "sub").mkdir()
(output / "w.bin").write_bytes((source / "model.safetensors").read_bytes()[::2] + calibration.read_bytes())
(output / "sub/config.json").write_text("{}")
(output / "log.txt").write_text("not asked for")
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "calibration.txt").write_text("text")
    (tmp_path / "tool.py").write_text(TOOL)
    text = RECIPE.replace("PYTHON", json.dumps(sys.executable))
    (path := tmp_path / "awq.toml").write_text(text)
    return path


def test_another_programs_recipe_is_run_recorded_and_made_once(store, recipe, tmp_path):
    environment = {"MELT_STREAM_ZOO": str(store.root)}
    done = melt("zoo", "convert", "folder", "--recipe", recipe, "--json", **environment)
    assert done.returncode == 0, done.stderr
    made = store.get("folder", "awq-4")
    assert [file.name for file in made.files] == ["sub/config.json", "w.bin"]
    assert (made.folder / "w.bin").read_bytes() == b"wihs" + b"text"
    assert (made.format, made.path) == ("awq", made.folder)
    told = made.recipe
    assert told["version"] == "tool 1.2"
    assert told["command"][1:] == ["tool.py", "{input}", "{output}", "{0}"]
    assert set(told["inputs"]) == {"config.json", "model.safetensors", "calibration.txt"}
    assert told["seconds"] > 0
    assert external.make(store, "folder", recipe) == made
    (tmp_path / "calibration.txt").write_text("other text")
    with pytest.raises(
        ConfigError, match=r"zoo:folder/awq-4: expected to make it with inputs = .*remove it first"
    ):
        external.make(store, "folder", recipe)


def test_a_recipe_whose_command_fails_or_gives_nothing_leaves_nothing(store, recipe, tmp_path):
    (tmp_path / "tool.py").write_text("import sys\nprint('no GPU')\nsys.exit(2)")
    with pytest.raises(
        DeviceError, match=r"(?s)awq-4 of folder: expected exit status 0, got exit status 2.*no GPU"
    ):
        external.make(store, "folder", recipe)
    (tmp_path / "tool.py").write_text("")
    with pytest.raises(DataError, match=r"expected a file '\*\.bin', got none"):
        external.make(store, "folder", recipe)
    assert [one.name for one in store.artefacts()] == ["folder"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("variant", "varaint"), r"awq\.toml\.varaint: .*did you mean 'variant'"),
        (('"awq-4"', '"../awq"'), r"awq\.toml\.variant: "),
        (('"{output}"', '"out"'), r"command: expected .*\{output\}"),
        (('"{0}"', '"{1}"'), r"command: expected one of 1 inputs, got \{1\}"),
        (('outputs = ["*.bin", "sub/*.json"]', "outputs = []"), r"awq\.toml\.outputs: "),
        (("calibration.txt", "gone.txt"), r"inputs: expected a readable file at .*gone\.txt"),
        (('format = "awq"', 'format = "awq"\nsource = "F16"'), "folder: expected its variant 'F16'"),
        (("format", "[format"), r"awq\.toml: expected a recipe in TOML"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(store, recipe, change, says):
    recipe.write_text(recipe.read_text().replace(*change))
    with pytest.raises(ConfigError, match=says):
        external.make(store, "folder", recipe)

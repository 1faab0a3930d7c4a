"""A model's configuration through every format and back: what comes back is what was said, and what does not was told."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melt_stream.cli._app import run as cli
from melt_stream.errors import ConfigError
from melt_stream.harness.configs import formats
from melt_stream.harness.configs.llama_cpp import read_args, split, to_main, to_workload
from melt_stream.harness.configs.llmfarm import read_llmfarm
from melt_stream.harness.configs.mlc import read_mlc
from melt_stream.harness.configs.model_config import FIELDS, REAL, WHOLE, ModelConfig, checked
from melt_stream.harness.configs.texts import escaped, shell_quoted, shell_unquoted, unescaped
from melt_stream.plugins import configure, load

THEIRS = Path(__file__).parents[3] / "shared" / "traces" / "melt_public" / "src" / "configs"
theirs = pytest.mark.skipif(not THEIRS.exists(), reason="needs ../shared/traces")
SUFFIX = {"melt": ".yaml", "llama.cpp": ".txt", "llama-server": ".txt"}

plain = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=30)
tricky = st.text(alphabet="\\\"'$`{}()[]n r\t\n-e<>", min_size=1, max_size=20) | st.sampled_from(
    ["[INST]", "{{prompt}}", "[system](x)", "--in-prefix", "-e", '"', '""', "\\n", "\\x41", "<|user|>\n"]
)
texts = plain | tricky
values = {
    one.name: st.none() | (st.integers(-1, 10**9) if one.name in WHOLE else st.floats(0, 1e6) if one.name in REAL else
                           st.booleans() if one.name == "chatml" else texts)
    for one in fields(ModelConfig)
}  # fmt: skip
configs = st.builds(ModelConfig, **values)


@settings(max_examples=150, deadline=None)
@given(configs, st.sampled_from([name for name in formats.WRITERS if name != "workload"]))
def test_what_comes_back_is_what_was_said_and_what_does_not_was_told(tmp_path_factory, config, kind):
    made = formats.write(config, kind)
    path = tmp_path_factory.mktemp("configs") / f"config{SUFFIX.get(kind, '.json')}"
    path.write_text(formats.as_text(made.value, kind), newline="")
    back = formats.read(path, "llama.cpp" if kind == "llama-server" else kind)
    assert back.lost == []
    missing = {name for name, value in config.given() if getattr(back.value, name) != value}
    assert missing == {one.name for one in made.lost}
    assert {name for name, _ in back.value.given()} <= {name for name, _ in config.given()}
    if kind in ("melt", "llmfarm-eval"):
        assert made.lost == []


@settings(max_examples=300, deadline=None)
@given(texts)
def test_a_text_survives_each_quoting(text):
    assert unescaped(escaped(text)) == text
    assert shell_unquoted(shell_quoted(text)) == text


@settings(max_examples=20, deadline=None)
@given(texts)
def test_a_real_shell_reads_the_quotes_so(text):
    done = subprocess.run(["sh", "-c", f"printf %s {shell_quoted(text)}"], capture_output=True, check=True)
    assert unescaped(done.stdout.decode("utf-8", "surrogateescape")) == text


@settings(max_examples=100, deadline=None)
@given(configs)
def test_a_workloads_fields_are_toml_and_keep_what_has_a_field(config):
    made = to_workload(config)
    told = tomllib.loads(formats.as_text(made.value, "workload"))["workloads"]["llama"]
    assert told == made.value
    assert told.get("max_tokens") == config.max_gen_len
    assert told.get("system") == config.text
    rest = read_args(told.get("args", []), "x").value
    assert (rest.top_k, rest.reverse, rest.max_gen_len, rest.text) == (
        config.top_k,
        config.reverse,
        None,
        None,
    )
    assert "text" not in {one.name for one in made.lost}


def test_the_workload_takes_its_fields():
    config = ModelConfig(
        max_gen_len=32,
        temperature=0.7,
        max_window_size=512,
        n_batch=64,
        top_k=40,
        text="Be brief.",
        reverse="[INST]",
    )
    made = {**to_workload(config).value, "binary": "llama-server", "model": "x.gguf"}
    workload = configure(load("melt_stream.workloads", "llama"), made, "test")
    assert (workload.max_tokens, workload.n_ctx, workload.system) == (32, 512, "Be brief.")
    assert workload.args == ["--top-k", "40", "-r", "[INST]", "-e"]


@theirs
def test_melts_own_files_mean_what_their_shell_makes_of_them():
    found = formats.read(THEIRS / "mistral-7b-instruct-v0.1.yaml")
    assert found.lost == []
    assert (found.value.in_prefix, found.value.reverse, found.value.top_k) == ("[INST]", "[INST]", 40)
    assert found.value.text is not None
    assert found.value.text.startswith("<s>Always assist with care")
    assert found.value.text.endswith("positivity.\n")
    example = formats.read(THEIRS / "example_config.yaml").value
    assert (example.text, example.in_prefix, example.mean_gen_len) == (
        "Your prompt text here",
        "<prefix>",
        128,
    )
    assert {name for name, _ in example.given()} == set(FIELDS) - {"chatml"}


def test_the_arguments_are_those_that_melt_gives_llama_cpp():
    config = ModelConfig(
        max_gen_len=256, max_window_size=4096, temperature=0.7, in_prefix="<start>\n", chatml=True
    )
    assert to_main(config).value == [
        "-n",
        "256",
        "-c",
        "4096",
        "--temp",
        "0.7",
        "--in-prefix",
        "<start>\\n",
        "--chatml",
        "-e",
    ]
    written = '-n 256 \\\n-c 4096 \\\n--temp 0.7 \\\n-e  \\\n--in-prefix "<start>\\n" \\\n--chatml  \\\n'
    assert read_args(split(written, "x"), "x").value == config
    found = read_args(["-ngl", "99", "--mlock", "-t", "-1", "-r", "-e", "--no-escape", "-p", "a\\n"], "x")
    assert [one.name for one in found.lost] == ["-ngl 99", "--mlock", "-t -1"]
    assert (found.value.reverse, found.value.text) == ("-e", "a\\n")


def test_what_melt_has_no_field_for_is_told():
    theirs_ = {
        "template_name": "TinyLLaMa", "temp": 0.9, "context": 2048, "mlock": True, "mirostat": 0,
        "prompt_format": "[system](You are brief.)\n<|user|>{prompt}</s>\n<|assistant|>",
    }  # fmt: skip
    found = read_llmfarm(theirs_, "x")
    assert [one.name for one in found.lost] == ["mlock", "mirostat"]
    assert (found.value.text, found.value.in_prefix) == ("You are brief.", "\n<|user|>")
    assert (found.value.in_suffix, found.value.max_window_size) == ("</s>\n<|assistant|>", 2048)


def test_both_generations_of_mlcs_file_are_read():
    template = {
        "name": "gemma_instruction", "system_template": "{system_message}", "system_message": "", "roles": {"user": "<start>user", "assistant": "<start>model"},
        "seps": ["<end>\n"], "role_content_sep": "\n", "role_empty_sep": "\n", "stop_str": ["<end>", "x"], "stop_token_ids": [1, 107],
    }  # fmt: skip
    found = read_mlc({"temperature": 0.7, "context_window_size": -1, "sliding_window_size": 4096, "prefill_chunk_size": 2048, "conv_template": template}, "x")  # fmt: skip
    assert (found.value.in_prefix, found.value.in_suffix) == ("<start>user\n", "<end>\n<start>model\n")
    assert (found.value.conv_template, found.value.max_window_size, found.value.reverse) == (
        "gemma_instruction",
        4096,
        "<end>",
    )
    assert [one.name for one in found.lost] == [
        "prefill_chunk_size",
        "conv_template.stop_str",
        "conv_template.stop_token_ids",
    ]
    old = read_mlc({"conv_template": "llama-2", "max_window_size": 4096}, "x").value
    assert old == ModelConfig(conv_template="llama-2", max_window_size=4096)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.yaml", "[", r"a\.yaml: expected YAML, got"),
        ("a.yaml", "- 1\n", "expected a table of fields, got list"),
        ("a.yaml", "sampling: 5\n", "a.yaml: sampling: expected a table of fields, got int"),
        ("a.yaml", "sampling:\n  top_k: 1.5\n", "a.yaml: top_k: expected a whole number, got 1.5"),
        ("a.yaml", "sampling:\n  temperature: .nan\n", "temperature: expected a number, got nan"),
        ("a.yaml", "prompt:\n  text: 5\n", "text: expected a text of at most 100000 characters, got int"),
        ("a.yaml", "prompt:\n  chatml: maybe\n", "chatml: expected true, false or nothing, got 'maybe'"),
        ("a.json", "{", r"a\.json: expected JSON, got"),
        ("a.json", '{"temp": 1, "prompt_format": "x"}', r"prompt_format: expected one \{\{prompt\}\}, got 0 in 'x'"),
        ("a.json", '{"conv_template": {"roles": {"user": 5}}}', r"conv_template\.roles\.user: expected a text, got int"),
        ("a.txt", "-n 'x", "expected arguments as a shell has them"),
        ("a.txt", "-n x", "-n: expected a number, got 'x'"),
        ("none", None, "none: expected a readable file"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_with_its_field(tmp_path, name, text, expected):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=expected):
        formats.read(tmp_path / name)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from([*FIELDS, "sampling", "generation", "prompt", "prompt_format", "temp", "roles", "seps", "stop_str", "context_window_size"]), inner, max_size=5)))  # fmt: skip
def test_any_tree_is_read_or_refused(tree):
    tree = tree if isinstance(tree, dict) else {"conv_template": tree}
    for kind in ("melt", "llmfarm", "llmfarm-eval", "mlc"):
        try:
            found = formats.TREES[kind](tree, "x")
        except ConfigError:
            continue
        assert isinstance(found.value, ModelConfig)


def test_the_command_prints_the_translation_and_tells_what_is_lost(tmp_path, capsys):
    path = tmp_path / "model_config.json"
    path.write_text(
        json.dumps(
            {"model": "m", "sampling": {"top_k": 40, "temperature": 0.5}, "generation": {"n_threads": 4}}
        )
    )
    assert cli(("config", "translate", str(path), "--to", "mlc")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"temperature": 0.5}
    assert [line.partition(": ")[2].partition(": ")[0] for line in err.splitlines()] == [
        "generation.n_threads",
        "model",
        "top_k",
    ]
    assert cli(("config", "translate", str(path), "--to", "llmfarm", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["value"]["temp"], told["lost"][0]["name"]) == (
        "llmfarm",
        0.5,
        "generation.n_threads",
    )
    assert cli(("config", "translate", str(path), "--to", "gguf")) == 2
    assert "expected one of melt, llama.cpp" in capsys.readouterr().err
    assert cli(("config", "translate", str(path), "--to", "mlc", "--of", "gguf")) == 2


def test_without_pyyaml_only_its_format_is_missing_and_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("model: x\n")
    with pytest.raises(ConfigError, match=r"pip install 'melt-stream\[zoo\]'"):
        formats.read(tmp_path / "a.yaml")
    (tmp_path / "a.json").write_text('{"temp": 1}')
    assert formats.read(tmp_path / "a.json").value == checked({"temperature": 1.0}, "x")

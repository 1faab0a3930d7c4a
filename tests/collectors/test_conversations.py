"""Conversations: turns in order, their context sent along or not, side by side."""

from __future__ import annotations

import json

import pytest
import trio

from melt_stream.collectors._asking import Asking
from melt_stream.collectors.llama import Llama
from melt_stream.collectors.ollama import Ollama
from melt_stream.collectors.openai_sse import OpenaiSse
from melt_stream.errors import DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import Recorded, chunk, event, run, serving, stream, whole

TWO = [["a1", "a2", "a3"], ["b1", "b2"]]


def said(text: str, **more) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text} | more, "finish_reason": "stop"}]})


def asked_of(body: dict) -> list[str]:
    return [message["content"] for message in body["messages"]]


async def test_a_kept_context_sends_what_was_really_answered_and_each_conversation_begins_anew():
    answers = [stream(said(text)) for text in ("A1", "A2", "A3", "B1", "B2")]
    async with serving(v1__chat__completions=answers) as http:
        await run(OpenaiSse(f"{http.url}/v1/", prompts=TWO, context="kept", system="Be brief."))
        bodies = http.asked["/v1/chat/completions"]
    assert [asked_of(body)[1:] for body in bodies] == [
        ["a1"], ["a1", "A1", "a2"], ["a1", "A1", "a2", "A2", "a3"], ["b1"], ["b1", "B1", "b2"],
    ]  # fmt: skip
    assert [m["role"] for m in bodies[1]["messages"]] == ["system", "user", "assistant", "user"]


async def test_a_cleared_context_asks_each_turn_alone():
    async with serving(v1__chat__completions=[stream(said("x"))]) as http:
        recorded = await run(OpenaiSse(f"{http.url}/v1/", prompts=TWO, repeat=2))
        bodies = http.asked["/v1/chat/completions"]
    assert [asked_of(body) for body in bodies] == [["a1"], ["a2"], ["a3"], ["b1"], ["b2"]] * 2
    told = recorded.detail("request_sent")
    assert [(d["conversation"], d["turn"], d["repetition"], d["context"]) for d in told] == [
        (f"conv-{c}", t, n, "cleared") for n in (1, 2) for c, t in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))
    ]
    assert [r["name"] for r in recorded.events("request_sent")][:2] == ["conv-1.1", "conv-1.2"]


async def test_each_repetition_of_a_kept_conversation_begins_with_nothing():
    async with serving(v1__chat__completions=[stream(said("x"))]) as http:
        await run(OpenaiSse(f"{http.url}/v1/", prompts=[["a", "b"]], context="kept", repeat=2, warmup=2))
        bodies = http.asked["/v1/chat/completions"]
    assert [asked_of(b) for b in bodies] == [["a"], ["b"], *([["a"], ["a", "x", "b"]] * 2)], (
        "warm-ups are alone"
    )


async def test_a_prompt_alone_has_no_conversation_and_no_history():
    async with serving(v1__chat__completions=[stream(said("x"))]) as http:
        recorded = await run(OpenaiSse(f"{http.url}/v1/", prompts=["a", "b"], context="kept"))
        assert [asked_of(body) for body in http.asked["/v1/chat/completions"]] == [["a"], ["b"]]
    assert not any("conversation" in detail for detail in recorded.detail("request_sent"))


async def test_reasoning_is_no_part_of_what_is_kept():
    first = stream(event({"choices": [{"delta": {"reasoning_content": "hm"}}]}), said("A"))
    async with serving(v1__chat__completions=[first, stream(said("B"))]) as http:
        await run(OpenaiSse(f"{http.url}/v1/", prompts=[["a", "b"]], context="kept"))
        assert asked_of(http.asked["/v1/chat/completions"][1]) == ["a", "A", "b"]


@pytest.mark.parametrize(("context", "sent"), [("kept", 4), ("cleared", 5)])
async def test_a_turn_that_fails_ends_what_rests_on_it_and_says_how_much(context, sent):
    replies = [stream(said("A1")), whole("no", 500), stream(said("x"))]
    async with serving(v1__chat__completions=replies) as http:
        recorded = await run(OpenaiSse(f"{http.url}/v1/", prompts=TWO, context=context))
        assert len(http.asked["/v1/chat/completions"]) == sent
    assert len(recorded.events("request_error")) == 1
    marks = [(r["name"], json.loads(r["detail"])) for r in recorded.events("mark")]
    told = {"conversation": "conv-1", "turn": 2, "repetition": 1, "not_asked": 1, "error": "HTTP 500: no"}
    told["error"] = recorded.detail("request_error")[0]["error"]
    assert marks == ([("conversation_ended", told)] if context == "kept" else [])


async def test_the_last_turn_that_fails_leaves_nothing_unasked():
    async with serving(v1__chat__completions=[stream(said("A")), whole("no", 500)]) as http:
        recorded = await run(OpenaiSse(f"{http.url}/v1/", prompts=[["a", "b"]], context="kept"))
    assert recorded.events("mark") == []


async def test_what_a_prompt_says_of_itself_goes_before_what_the_workload_says(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,system,max_tokens\na,Rhyme.,7\nb,,\n")
    async with serving(v1__chat__completions=[stream(said("x"))]) as http:
        workload = OpenaiSse(f"{http.url}/v1/", prompts=str(path), system="Be brief.", ignore_eos=True)
        recorded = await run(workload)
        one, two = http.asked["/v1/chat/completions"]
    assert (asked_of(one), one["max_tokens"]) == (["Rhyme.", "a"], 7)
    assert (asked_of(two), two["max_tokens"]) == (["Be brief.", "b"], 64)
    assert one["ignore_eos"] is True
    assert [detail["max_tokens"] for detail in recorded.detail("request_sent")] == [7, 64]


async def test_ollama_keeps_what_was_answered_without_thinking():
    lines = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    at = {"created_at": "2026-11-22T13:23:42Z"}
    pieces = [{"message": {"content": "A", "thinking": "hm"}}, {"message": {"content": "B"}}, {"done": True}]
    reply = [lines, *(chunk(json.dumps(at | p).encode() + b"\n") for p in pieces), b"0\r\n\r\n"]
    paths = {"api__generate": [whole({"done": True})], "api__show": [whole({"details": {}})]}
    async with serving(**paths, api__chat=[reply]) as http:
        await run(Ollama("m", url=http.url, prompts=[["a", "b"]], context="kept"))
        assert [asked_of(body) for body in http.asked["/api/chat"]] == [["a"], ["a", "AB", "b"]]


# Who waits for whom, in virtual time; an answer takes as many seconds as its prompt says.


async def timed(autojump_clock, **fields) -> list[tuple[str, float]]:
    del autojump_clock
    began, times = trio.current_time(), []

    async def ask(question) -> None:
        times.append((question.name, trio.current_time() - began))
        await trio.sleep(float(question.text))

    await Asking(**fields).ask_all(Hub().outlet("w"), ask)
    return times


async def test_conversations_run_side_by_side_and_their_turns_in_order(autojump_clock):
    times = await timed(autojump_clock, prompts=[["3", "1"], ["1", "1"], ["1"]], concurrency=2)
    assert times == [("conv-1.1", 0), ("conv-2.1", 0), ("conv-2.2", 1), ("conv-3.1", 2), ("conv-1.2", 3)]


async def test_with_a_rate_conversations_begin_and_their_turns_wait(autojump_clock):
    times = await timed(autojump_clock, prompts=[["3", "1"], ["5"], ["1"]], rate=1.0)
    assert times == [("conv-1.1", 0), ("conv-2.1", 1), ("conv-3.1", 2), ("conv-1.2", 3)]


# llama.cpp


TIMED = {"prompt_n": 5, "prompt_ms": 1.0, "predicted_n": 1, "predicted_ms": 0.0}


@pytest.mark.parametrize(
    "paths",
    [
        {},
        {"apply-template": [whole({"prompt": "<user>x"})]},
        {"tokenize": [whole({"tokens": [1]})]},
    ],
)
async def test_a_llama_cpp_too_old_to_count_gets_approximate_prompts(paths):
    answer = event({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "timings": TIMED})
    more = {
        "health": [whole({"status": "ok"})],
        "props": [whole({})],
        "v1__chat__completions": [stream(answer)],
    }
    async with serving(**paths, **more) as http:
        recorded = await run(Llama(url=http.url, prompts="synthetic:tokens=6"))
        (body,) = http.asked["/v1/chat/completions"]
    assert len(body["messages"][0]["content"].split()) == 6
    assert recorded.facts["synthetic_prompts"].startswith("approximate")


@pytest.mark.parametrize("reply", [whole("<html>"), whole({"tokens": 7}), whole({}), whole([])])
async def test_counts_that_are_none_are_named(reply):
    paths = {"health": [whole({"status": "ok"})], "props": [whole({})], "tokenize": [reply]}
    async with serving(**paths, **{"apply-template": [whole({"prompt": "<user>x"})]}) as http:
        with pytest.raises(DeviceError, match="its tokens from /tokenize"):
            await Llama(url=http.url, prompts="synthetic:tokens=6").collect(Hub().outlet("w"))


needs_model = pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}")


def prompt_tokens(recorded: Recorded) -> list[int]:
    return [detail["usage"]["prompt_tokens"] for detail in recorded.detail("request_end")]


@pytest.mark.model
@needs_model
async def test_the_embedded_models_second_prompt_holds_its_first_answer():
    turns = [["Name a colour.", "And another one."]]
    short = {"max_tokens": 8, "ignore_eos": True, "keep_text": True, "cache_prompt": True}
    kept = await run(Llama(prompts=turns, context="kept", **short))
    alone = await run(Llama(prompts=turns, **short))
    first, second = prompt_tokens(kept)
    first_alone, second_alone = prompt_tokens(alone)
    assert first == first_alone
    answer = 8
    assert second > first + answer, "turn 1, its answer, and more"
    assert second > second_alone + answer
    cached = [r["prompt_cached"] for r in kept.events("prefill_start")]
    assert cached[0] == 0
    assert cached[1] > first, "the server had turn 1 already, and tells so"
    assert [d["context"] for d in kept.detail("request_sent")] == ["kept", "kept"]


@pytest.mark.model
@needs_model
async def test_synthetic_prompts_have_exactly_their_tokens_and_answers_theirs():
    workload = Llama(
        prompts="synthetic:tokens=57,output=5,count=3,seed=2", ignore_eos=True, system="Be brief."
    )
    recorded = await run(workload)
    assert prompt_tokens(recorded) == [57, 57, 57]
    assert [d["usage"]["completion_tokens"] for d in recorded.detail("request_end")] == [5, 5, 5]
    assert recorded.facts["synthetic_prompts"].startswith("exact")


@pytest.mark.model
@needs_model
async def test_fewer_tokens_than_the_embedded_models_template_are_an_error():
    with pytest.raises(DeviceError, match=r"expected tokens >= \d+, .* got 3"):
        await Llama(prompts="synthetic:tokens=3").collect(Hub().outlet("w"))

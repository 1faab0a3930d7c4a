import json

import pytest

from melt_stream.collectors.ollama import Ollama
from melt_stream.errors import DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import Recorded, chunk, run, serving, whole

LINES = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
BASE = 1_795_353_822_000_000_000  # 2026-11-22T13:23:42Z


def line(second: float | str, text: str = "", **more) -> bytes:
    at = second if isinstance(second, str) else f"2026-11-22T13:23:{42 + second:012.9f}Z"
    body = {"model": "m", "created_at": at, "message": {"role": "assistant", "content": text}, "done": False}
    return json.dumps(body | more).encode() + b"\n"


def last(second: float, tokens: int, **more) -> bytes:
    told = {"done_reason": "stop", "eval_count": tokens, "eval_duration": 2_000_000, "prompt_eval_count": 7}
    told |= {"prompt_eval_duration": 250_000_000, "total_duration": 300_000_000, "load_duration": 1_000}
    return line(second, done=True, **(told | more))


def reply(*pieces: bytes) -> list[bytes]:
    return [LINES, *map(chunk, pieces), END]


def server(*replies, **more):
    show = whole({"details": {"quantization_level": "Q4_1"}})
    paths = {"api__generate": [whole({"done": True})], "api__show": [show], "api__chat": list(replies)}
    return serving(**paths | more)


def one(url: str, **fields) -> Ollama:
    return Ollama("m", **{"url": url, "prompts": ["hello"], "keep_text": True, **fields})


def tokens(recorded: Recorded) -> list[tuple]:
    return [
        (r["tick"] - BASE, r["index"], r["count"], r["visible"], r.get("text"))
        for r in recorded.events("token")
    ]


async def test_tokens_are_at_the_serving_machines_wall_clock_to_the_nanosecond():
    pieces = [
        line(0.000000001, "a"),
        line("2026-11-22T14:23:42.5+01:00", "b"),
        line("2026-11-22T13:23:43Z", "c"),
    ]
    async with server(reply(*pieces, last(1.25, 3))) as http:
        recorded = await run(one(http.url))
    assert tokens(recorded) == [
        (1, 0, 1, True, "a"),
        (500_000_000, 1, 1, True, "b"),
        (10**9, 2, 1, True, "c"),
    ]
    (end,) = recorded.detail("request_end")
    assert (end["finish"], end["eval_count"], end["total_duration"]) == ("stop", 3, 300_000_000)


async def test_each_line_is_a_one_way_reading_of_that_clock():
    async with server(reply(line(0.1, "a"), line(0.2, "b") + last(0.3, 2))) as http:
        recorded = await run(one(http.url), Hub(now=lambda: http.sent))
    readings = [(r["count"] - BASE, r["not_after"], r["clock_of"]) for r in recorded.readings]
    assert readings == [(100_000_000, 2, "w.wall"), (200_000_000, 3, "w.wall"), (300_000_000, 3, "w.wall")]
    assert {(r["kind"], r["tick_ns"], r["same_rate"]) for r in recorded.readings} == {("arrival", 1.0, False)}
    assert [r["arrival_ns"] for r in recorded.events("token")] == [2, 3]


async def test_prefill_is_found_from_the_duration_that_the_end_tells():
    async with server(reply(line(0.5, "a"), last(0.6, 1, prompt_eval_cached_count=3))) as http:
        recorded = await run(one(http.url))
    (start,), (end,) = recorded.events("prefill_start"), recorded.events("prefill_progress")
    assert (start["tick"] - BASE, end["tick"] - BASE) == (250_000_000, 500_000_000)
    assert (end["prompt_total"], end["prompt_cached"], end["prompt_processed"]) == (7, 3, 7)


async def test_tokens_that_the_end_counts_beyond_the_lines_are_one_last_row():
    async with server(reply(line(0.1, "a"), last(0.4, 4))) as http:
        recorded = await run(one(http.url))
    assert tokens(recorded)[1] == (400_000_000, 3, 3, False, None)


async def test_thinking_counts_and_shows():
    thinking = line(0.1, message={"content": "", "thinking": "hm"})
    async with server(reply(thinking, line(0.2, "a"), last(0.3, 2))) as http:
        recorded = await run(one(http.url))
    assert [t[4] for t in tokens(recorded)] == ["hm", "a"]


async def test_the_model_is_loaded_first_as_a_phase_of_its_own():
    async with server(reply(line(0.1, "a"), last(0.2, 1))) as http:
        recorded = await run(one(http.url, n_ctx=99))
        assert http.asked["/api/generate"] == [{"model": "m", "stream": False, "options": {"num_ctx": 99}}]
    assert [r["kind"] for r in recorded.tables["w.events"]] == [
        "load_start",
        "load_end",
        "request_sent",
        "request_end",
    ]
    assert recorded.facts == {"model": "m", "quantization_level": "Q4_1"}


async def test_a_line_in_two_reads_and_a_character_in_two_reads():
    data = json.dumps(json.loads(line(0.1, "日")), ensure_ascii=False).encode() + b"\n"
    at = data.index("日".encode()) + 1
    async with server(reply(data[:at], data[at:], last(0.2, 1))) as http:
        recorded = await run(one(http.url), Hub(now=lambda: http.sent))
    assert tokens(recorded) == [(100_000_000, 0, 1, True, "日")]
    assert recorded.events("token")[0]["arrival_ns"] == 3


async def test_a_last_line_without_line_feed_counts():
    async with server(reply(line(0.1, "a"), last(0.2, 1).rstrip())) as http:
        recorded = await run(one(http.url))
    assert len(recorded.events("request_end")) == 1


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([line(0.1, "a")], "without its end mark"),
        ([b'{"error": "model runner has unexpectedly stopped"}\n'], "unexpectedly stopped"),
        ([line("yesterday", "a")], "created_at: expected a time as in RFC 3339, got 'yesterday'"),
        ([line("2026-13-22T13:23:42Z", "a")], "created_at: expected a time"),
        ([b"[]\n"], "expected a line of Ollama's"),
        ([last(0.1, -1)], "eval_count"),
    ],
)
async def test_a_failed_request_is_a_row_and_the_next_is_asked(pieces, said):
    async with server(reply(*pieces), reply(line(0.1, "a"), last(0.2, 1))) as http:
        recorded = await run(one(http.url, repeat=2))
    assert said in recorded.detail("request_error")[0]["error"]
    assert len(recorded.events("request_end")) == 1


async def test_a_model_that_is_not_there_is_a_device_error():
    missing = whole({"error": "model 'm' not found"}, 404)
    async with server(api__generate=[missing]) as http:
        with pytest.raises(DeviceError, match=r"expected to load m, got HTTP 404: .*not found"):
            await one(http.url).collect(Hub().outlet("w"))


async def test_no_server_is_a_device_error():
    with pytest.raises(DeviceError, match="expected an Ollama server, got ConnectError"):
        await one("http://127.0.0.1:9").collect(Hub().outlet("w"))


async def test_what_is_no_ollama_is_a_device_error():
    async with server(reply(line(0.1, "a"), last(0.2, 1)), api__show=[whole("<html>")]) as http:
        with pytest.raises(DeviceError, match="expected what Ollama tells at /api/show"):
            await one(http.url).collect(Hub().outlet("w"))

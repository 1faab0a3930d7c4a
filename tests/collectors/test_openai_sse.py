import pytest

from melt_stream.collectors.openai_sse import OpenaiSse
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import STREAM, Recorded, chunk, event, run, serving, stream, whole


def piece(text: str | None = None, finish: str | None = None, usage: int | None = None, **delta) -> bytes:
    delta = delta if text is None else {"content": text}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return event(body | ({"usage": {"completion_tokens": usage}} if usage is not None else {}))


def final(usage: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": usage}})


def server(*replies):
    return serving(v1__chat__completions=list(replies))


def one(url: str, **fields) -> OpenaiSse:
    return OpenaiSse(f"{url}/v1/", **{"prompts": ["hello"], "keep_text": True, **fields})


def tokens(recorded: Recorded) -> list[tuple]:
    return [
        (r["tick"], r["index"], r["count"], r["visible"], r.get("text")) for r in recorded.events("token")
    ]


async def test_tokens_are_stamped_when_they_arrive_on_the_hosts_clock():
    pieces = [piece(role="assistant"), piece("a"), piece("b") + piece("c"), piece(finish="stop")]
    async with server(stream(*pieces)) as http:
        recorded = await run(one(http.url), Hub(now=lambda: http.sent))  # the time is the number of the read
    assert tokens(recorded) == [(3, 0, 1, True, "a"), (4, 1, 1, True, "b"), (4, 2, 1, True, "c")]
    assert [row["arrival_ns"] for row in recorded.events("token")] == [3, 4, 4]
    assert set(recorded.tables) == {"w.events", "run.facts"}  # no clock but the host's, no readings
    assert recorded.events("prefill_start") == []
    assert recorded.detail("request_end")[0]["times"] == "arrival"


async def test_reasoning_counts_and_shows():
    async with server(
        stream(piece(reasoning_content="hm"), piece(reasoning="so"), piece("a", "stop"))
    ) as http:
        recorded = await run(one(http.url))
    assert [t[4] for t in tokens(recorded)] == ["hm", "so", "a"]


async def test_a_tool_call_is_output_without_text():
    async with server(stream(piece(tool_calls=[{"index": 0}]), piece(finish="tool_calls"))) as http:
        recorded = await run(one(http.url))
    assert [t[1:4] for t in tokens(recorded)] == [(0, 1, True)]


async def test_tokens_that_usage_has_beyond_the_pieces_are_one_last_row():
    async with server(stream(piece("ab"), piece("cd"), piece(finish="stop"), final(5))) as http:
        recorded = await run(one(http.url), Hub(now=lambda: http.sent))
    assert tokens(recorded) == [(2, 0, 1, True, "ab"), (3, 1, 1, True, "cd"), (4, 4, 3, False, None)]
    assert recorded.detail("request_end")[0]["usage"]["completion_tokens"] == 5


async def test_usage_in_every_piece_says_how_many_tokens_it_has():
    async with server(
        stream(piece("ab", usage=2), piece("cde", usage=5), piece(finish="stop", usage=6))
    ) as http:
        recorded = await run(one(http.url))
    assert [t[1:4] for t in tokens(recorded)] == [(1, 2, True), (4, 3, True), (5, 1, False)]


async def test_usage_below_the_pieces_takes_nothing_away():
    async with server(stream(piece("a"), piece("b"), piece(finish="stop"), final(1))) as http:
        recorded = await run(one(http.url))
    assert [t[1:3] for t in tokens(recorded)] == [(0, 1), (1, 1)]


async def test_a_dropped_connection_keeps_what_came():
    async with server([STREAM, chunk(piece("a"))], stream(piece("x", "stop"))) as http:
        recorded = await run(one(http.url, repeat=2))
    assert [(r["request"], r["text"]) for r in recorded.events("token")] == [(1, "a"), (2, "x")]
    assert "incomplete chunked read" in recorded.detail("request_error")[0]["error"]


async def test_nobody_there_is_a_device_error():
    with pytest.raises(DeviceError, match=r"none to 2 requests; the last: ConnectError"):
        await one("http://127.0.0.1:9", repeat=2).collect(Hub().outlet("w"))


async def test_a_compressed_answer_is_refused_with_the_reason():
    head = STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with server([head, chunk(b"\x1f\x8b")]) as http:
        with pytest.raises(DeviceError, match="expected an answer that is not compressed, got 'gzip'"):
            await one(http.url).collect(Hub().outlet("w"))


async def test_an_event_without_end_is_refused_before_the_memory_is_full(monkeypatch):
    monkeypatch.setattr("melt_stream.collectors._sse.LIMIT", 10_000)
    async with server([STREAM, *[chunk(b"data: " + b"x" * 4000)] * 4]) as http:
        with pytest.raises(DeviceError, match="expected events below 10000 bytes, got a longer one"):
            await one(http.url).collect(Hub().outlet("w"))


async def test_a_silent_server_is_given_up_after_the_timeout():
    hub = Hub()
    async with server([STREAM, chunk(piece("a")), None]) as http:
        with pytest.raises(DeviceError, match="ReadTimeout"):
            await one(http.url, timeout=0.2).collect(hub.outlet("w"))
    assert [t[4] for t in tokens(Recorded(hub))] == ["a"]


async def test_the_key_comes_from_the_environment_and_goes_nowhere_else(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    async with server(stream(piece("a", "stop"))) as http:
        recorded = await run(one(http.url, api_key_env="MY_KEY", model="m"))
    assert b"authorization: bearer sk-secret" in http.headers[0].lower()
    assert b"accept-encoding: identity" in http.headers[0].lower()
    assert http.asked["/v1/chat/completions"][0]["model"] == "m"
    assert "sk-secret" not in str(recorded.tables)


def test_a_key_that_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="the environment has no MY_KEY"):
        one("http://127.0.0.1:9", api_key_env="MY_KEY").prepare()


async def test_a_plain_answer_is_not_a_stream():
    async with server(whole({"choices": []})) as http:
        with pytest.raises(DeviceError, match="text/event-stream"):
            await one(http.url).collect(Hub().outlet("w"))

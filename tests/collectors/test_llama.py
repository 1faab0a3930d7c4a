import json
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio

from melt_stream.collectors.llama import Llama
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.outlet import Hub
from tests.collectors.scripted_http import (
    END,
    STREAM,
    Recorded,
    check_nobody_outlives,
    chunk,
    event,
    run,
    serving,
    stream,
    traces,
    whole,
)

PROPS = {"model_path": "/m/Tiny.Q4_1.gguf", "model_ftype": "Q4_1", "build_info": "b7-abc", "total_slots": 2}
PROPS |= {"default_generation_settings": {"n_ctx": 512}}


def timings(predicted: int, ms: float, prompt: int = 5, prompt_ms: float = 100.25, **more) -> dict:
    return {"prompt_n": prompt, "prompt_ms": prompt_ms, "predicted_n": predicted, "predicted_ms": ms, **more}


def piece(text: str | None, *timed, finish: str | None = None, **more) -> bytes:
    delta = {} if text is None else {"content": text}
    body = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return event(body | ({"timings": timings(*timed, **more)} if timed else {}))


def server(*replies, **more):
    chat = {"v1__chat__completions": list(replies)}
    return serving(**{"health": [whole({"status": "ok"})], "props": [whole(PROPS)], **chat, **more})


def one(url: str, **fields) -> Llama:
    return Llama(**{"url": url, "prompts": ["hello"], "keep_text": True, **fields})


def tokens(recorded: Recorded) -> list[tuple]:
    return [
        (r["tick"], r["index"], r["count"], r["visible"], r.get("text")) for r in recorded.events("token")
    ]


async def test_a_recorded_answer_gives_every_token_at_the_servers_own_microsecond():
    lines = traces("llama_server/llama_server_chat_sse.jsonl").read_text().splitlines()
    said = [json.loads(line)["event"] for line in lines]
    async with server(stream(*map(event, said))) as http:
        recorded = await run(one(http.url))
    timed = [p["timings"] for p in said if p.get("timings") and p["choices"] and p["timings"]["predicted_n"]]
    assert len(timed) == 48
    assert [(t[0], t[1]) for t in tokens(recorded)] == [
        (int(round(t["prompt_ms"] * 1000) + round(t["predicted_ms"] * 1000)), t["predicted_n"] - 1)
        for t in timed
    ]
    ticks = [0, 2699967, 5363964, 5749201, *(t[0] for t in tokens(recorded))]
    assert [r["count"] for r in recorded.readings] == ticks, "the last piece repeats a time: no reading"
    progress = recorded.events("prefill_progress")
    assert [(p["tick"], p["prompt_processed"]) for p in progress] == [
        (2699967, 64),
        (5363964, 128),
        (5749201, 139),
    ]
    (start,) = recorded.events("prefill_start")
    assert (start["tick"], start["prompt_total"], start["prompt_cached"]) == (0, 139, 0)
    (end,) = recorded.detail("request_end")
    assert end["finish"] == "length"
    assert end["usage"]["completion_tokens"] == 48
    assert "".join(t[4] for t in tokens(recorded)).startswith("The sky is blue because of a process")


async def test_token_ticks_come_with_one_way_readings_between_sending_and_arrival():
    pieces = [piece("a", 1, 0.001), piece("b", 2, 20.5), piece(None, finish="length")]
    async with server(stream(*pieces)) as http:
        recorded = await run(one(http.url))
    (sent,), (end,) = recorded.events("request_sent"), recorded.events("request_end")
    assert [(r["count"], r["epoch_of"], r["kind"]) for r in recorded.readings] == [
        (100251, 1, "arrival"),
        (120750, 1, "arrival"),
    ]
    assert [r["arrival_ns"] for r in recorded.events("token")] == [r["not_after"] for r in recorded.readings]
    for reading in recorded.readings:
        assert sent["tick"] == reading["not_before"] < reading["not_after"] <= end["tick"]
        assert (reading["clock_of"], reading["tick_ns"], reading["same_rate"]) == ("w.server", 1000.0, True)


async def test_a_server_elsewhere_has_a_rate_of_its_own():
    async with server(stream(piece("a", 1, 0.001, finish="stop"))) as http:
        recorded = await run(one(http.url, remote=True))
    assert [r["same_rate"] for r in recorded.readings] == [False]


async def test_arrival_is_when_the_read_returned_that_completed_the_piece():
    b, two = chunk(piece("b", 2, 20.0)), chunk(piece("c", 3, 40.0) + piece("d", 4, 60.0))
    reply = [STREAM, chunk(piece("a", 1, 0.0)), b[:90], b[90:], two, chunk(piece(None, finish="stop")) + END]
    async with server(reply) as http:
        recorded = await run(one(http.url), Hub(now=lambda: http.sent))  # the time is the number of the read
    assert [row["arrival_ns"] for row in recorded.events("token")] == [2, 4, 5, 5]


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
async def test_a_character_split_between_reads_comes_out_whole(cut):
    data = b'data: {"choices":[{"delta":{"content":"\xf0\x9f\xa6\x84!"}}],"timings":'
    data += json.dumps(timings(1, 0.0)).encode() + b"}\n\n"
    at = data.index(b"\xf0") + cut
    async with server(stream(data[:at], data[at:], piece(None, finish="stop"))) as http:
        recorded = await run(one(http.url))
    assert [t[4] for t in tokens(recorded)] == ["🦄!"]


async def test_one_byte_a_read():
    data = piece("á", 1, 0.0) + piece("b", 2, 9.0, finish="stop")
    async with server([STREAM, *(chunk(data[n : n + 1]) for n in range(len(data))), END]) as http:
        recorded = await run(one(http.url))
    assert [(t[1], t[4]) for t in tokens(recorded)] == [(0, "á"), (1, "b")]


async def test_withheld_text_counts_its_tokens_and_the_first_ends_with_the_prompt():
    pieces = [piece("🦄", 3, 22.5), piece("日", 4, 33.5), piece(None, finish="length")]
    last = event({"choices": [], "timings": timings(6, 55.5), "usage": {"completion_tokens": 6}})
    async with server(stream(*pieces, last)) as http:
        recorded = await run(one(http.url))
    assert tokens(recorded) == [
        (100250, 0, 1, False, None),  # its text was withheld; it ended with the prompt
        (122750, 2, 2, True, "🦄"),
        (133750, 3, 1, True, "日"),
        (155750, 5, 2, False, None),  # cut off within a character
    ]


async def test_eos_is_a_token_that_is_not_visible():
    pieces = [piece("A", 1, 0.001), piece(None, finish="stop")]
    last = event({"choices": [], "timings": timings(2, 11.0), "usage": {"completion_tokens": 2}})
    async with server(stream(*pieces, last)) as http:
        recorded = await run(one(http.url))
    assert tokens(recorded) == [(100251, 0, 1, True, "A"), (111250, 1, 1, False, None)]


async def test_a_speculative_step_is_one_row_with_all_its_text():
    pieces = [
        piece("a", 1, 0.0, draft_n=0, draft_n_accepted=0),
        piece("b", 4, 30.0, draft_n=4, draft_n_accepted=2),
        piece("c", 4, 30.0, draft_n=4, draft_n_accepted=2),
        piece("d", 4, 30.0, draft_n=4, draft_n_accepted=2, finish="stop"),
    ]
    async with server(stream(*pieces)) as http:
        recorded = await run(one(http.url))
    assert tokens(recorded)[1] == (130250, 3, 3, True, "bcd")
    assert [(r["drafted"], r["accepted"]) for r in recorded.events("token")] == [(0, 0), (4, 2)]


async def test_text_is_kept_only_if_asked():
    async with server(stream(piece("secret", 1, 0.0, finish="stop"))) as http:
        recorded = await run(one(http.url, keep_text=False, prompts=["private"]))
    assert "text" not in recorded.events("token")[0]
    assert "private" not in str(recorded.tables)


@pytest.mark.parametrize("ending", ["cut off", "closed in order"])
async def test_a_dropped_connection_keeps_what_came_and_the_workload_goes_on(ending):
    begun = chunk(piece("a", 1, 0.0)) + chunk(piece("b", 2, 9.0))
    broken = [STREAM, begun] if ending == "cut off" else [STREAM, begun + END]
    async with server(broken, stream(piece("x", 1, 0.0, finish="stop"))) as http:
        recorded = await run(one(http.url, repeat=2))
    assert [(r["request"], r["index"]) for r in recorded.events("token")] == [(1, 0), (1, 1), (2, 0)]
    (error,), (failed,) = recorded.events("request_error"), recorded.detail("request_error")
    assert error["request"] == 1
    assert ("incomplete chunked read" if ending == "cut off" else "without its end mark") in failed["error"]
    assert [row["request"] for row in recorded.events("request_end")] == [2]


async def test_a_server_that_stops_answering_ends_the_workload():
    async with server([STREAM, chunk(piece("a", 1, 0.0))], health=[whole(), whole("loading", 503)]) as http:
        hub = Hub()
        with pytest.raises(DeviceError, match=r"does not answer any more \(503\)"):
            await one(http.url, repeat=3).collect(hub.outlet("w"))
    recorded = Recorded(hub)
    assert len(recorded.events("token")) == len(recorded.events("request_error")) == 1


async def test_an_error_answer_is_a_row_and_the_next_prompt_is_asked():
    refused = whole({"error": {"code": 400, "message": "exceeds the available context size"}}, 400)
    inside = [STREAM, chunk(piece("a", 1, 0.0)), chunk(event({"error": {"message": "slot lost"}})) + END]
    async with server(refused, inside, stream(piece("x", 1, 0.0, finish="stop"))) as http:
        recorded = await run(one(http.url, repeat=3))
    first, second = (detail["error"] for detail in recorded.detail("request_error"))
    assert "HTTP 400" in first
    assert "exceeds the available context size" in first
    assert "slot lost" in second
    assert len(recorded.events("request_end")) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (whole("no", 500), "HTTP 500"),
        (stream(event({"choices": [{"delta": {"content": "x"}}]})), "is this a llama.cpp server"),
        (stream(event("{not json")), "expected a chat.completion.chunk"),
        (stream(event({"choices": [], "timings": timings(1, float("nan"))})), "predicted_ms"),
        (stream(event({"choices": [], "timings": timings(10**30, 1.0)})), "predicted_n"),
        (whole("<html>", 200, "text/html"), "text/event-stream"),
    ],
)
async def test_no_answer_at_all_is_a_device_error_that_says_why(reply, said):
    async with server(reply) as http:
        with pytest.raises(DeviceError, match=said):
            await one(http.url).collect(Hub().outlet("w"))


async def test_a_server_that_never_is_healthy_is_given_up():
    async with server(health=[whole("loading", 503)]) as http:
        with pytest.raises(DeviceError, match=r"expected 200 from /health within 0.05 s, got 503"):
            await one(http.url, start_timeout=0.05).collect(Hub().outlet("w"))


async def test_warm_up_requests_come_first_in_a_phase_of_their_own():
    async with server(stream(piece("a", 1, 0.0, finish="stop"))) as http:
        recorded = await run(one(http.url, warmup=2))
    host = [(row["kind"], row.get("request")) for row in recorded.tables["w.events"]]
    assert host[0] == ("phase_start", None)
    assert host[5] == ("phase_end", None)
    assert [r["name"] for r in recorded.events("phase_start") + recorded.events("phase_end")] == [
        "warmup"
    ] * 2
    assert [d["warmup"] for d in recorded.detail("request_sent")] == [True, True, False]


async def test_as_many_requests_at_once_as_asked_each_on_its_own_epoch():
    async with server(stream(piece("a", 1, 0.0), piece("b", 2, 5.0, finish="stop"))) as http:
        recorded = await run(one(http.url, repeat=4, concurrency=2))
    kinds = [row["kind"] for row in recorded.tables["w.events"]]
    assert kinds[:2] == ["request_sent"] * 2
    assert {(r["request"], r["epoch"]) for r in recorded.events("token")} == {(n, n) for n in (1, 2, 3, 4)}


async def test_what_is_asked_of_the_server():
    async with server(stream(piece("a", 1, 0.0, finish="stop"))) as http:
        await run(one(http.url, system="Be brief.", max_tokens=7, seed=3, ignore_eos=True))
        (asked,) = http.asked["/v1/chat/completions"]
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert (asked["max_tokens"], asked["seed"], asked["ignore_eos"], asked["cache_prompt"]) == (
        7,
        3,
        True,
        False,
    )
    assert asked["timings_per_token"] is asked["return_progress"] is asked["stream"] is True


async def test_facts_of_the_server_are_recorded():
    async with server(stream(piece("a", 1, 0.0, finish="stop"))) as http:
        facts = (await run(one(http.url))).facts
    assert facts == {
        "model": "Tiny.Q4_1.gguf", "model_file": "/m/Tiny.Q4_1.gguf", "quantisation": "Q4_1",
        "server_build": "b7-abc", "n_ctx": 512, "slots": 2,
    }  # fmt: skip


async def test_a_server_that_is_not_llama_cpp_is_named():
    async with server(stream(), props=[whole("<html>")]) as http:
        with pytest.raises(DeviceError, match=r"expected what llama.cpp tells at /props"):
            await one(http.url).collect(Hub().outlet("w"))


async def test_a_server_that_tells_nothing_of_itself_is_asked_all_the_same():
    async with server(stream(piece("a", 1, 0.0, finish="stop")), props=[whole("", 404)]) as http:
        recorded = await run(one(http.url))
    assert len(recorded.events("token")) == 1
    assert recorded.facts == {}


async def test_cancelled_in_an_answer_it_keeps_what_came_and_says_so():
    hub, taken = Hub(), trio.Event()
    async with server([STREAM, chunk(piece("a", 1, 0.0)), taken]) as http, trio.open_nursery() as nursery:
        nursery.start_soon(one(http.url).collect, hub.outlet("w"))
        await taken.wait()
        nursery.cancel_scope.cancel()
    recorded = Recorded(hub)
    assert [row["index"] for row in recorded.events("token")] == [0]
    assert recorded.detail("request_error")[0]["error"] == "cancelled"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.txt", "one\n\ntwo\n", [("p-1", "one"), ("p-2", "two")]),
        ("p.json", '["one", {"prompt": "two", "name": "b"}]', [("p-1", "one"), ("b", "two")]),
        ("p.jsonl", '"one"\n{"prompt": "two"}\n', [("p-1", "one"), ("p-2", "two")]),
    ],
)
def test_prompts_from_a_file(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert [(q.name, q.text) for q in Llama(prompts=str(tmp_path / name)).questions()] == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.json", "{", "expected JSON"),
        ("p.json", "[]", "at least one prompt"),
        ("p.jsonl", '{"text": "one"}', "entry 1: expected a string or an object with a prompt"),
        ("p.txt", "", "at least one prompt"),
    ],
)
def test_a_bad_prompt_file_is_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        Llama(prompts=str(tmp_path / name)).questions()


def test_prompts_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match=r"the path of a file of them, .* got .no/such"):
        Llama(prompts="no/such", url="http://x").prepare()


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://x", "model": "m"},
        {"binary": "llama-server"},
        {"args": ["-x"]},
        {"url": "u", "binary": "b"},
    ],
)
def test_fields_that_do_not_go_together(fields):
    with pytest.raises(ConfigError, match="expected"):
        Llama(**fields)


# A server that we start: a small real program in llama-server's place.

PROGRAM = """
import http.server, json, os, sys

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
how = os.path.basename(arguments["-m"])
print("loading", arguments["-m"], arguments["-c"], flush=True)
if how == "broken":
    sys.exit("error: not a model")
fifo = os.path.join(os.path.dirname(arguments["-m"]), "alive")
alive = open(fifo, "w") if os.path.exists(fifo) else None

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None

    def reply(self, data, kind="application/json"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def do_GET(self):
        self.reply(b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(PIECE, "text/event-stream")
        if how == "dies":
            print("GGML_ASSERT: out of luck", flush=True)
            os._exit(3)
        if how == "crashes":
            os.kill(os.getpid(), 11)
        if how == "hangs":
            self.rfile.read()

http.server.ThreadingHTTPServer(("127.0.0.1", int(arguments["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "llama-server"
    path.write_text(f"#!{sys.executable}\nPIECE = {piece('a', 1, 0.0) + piece('b', 2, 9.0)!r}\n{PROGRAM}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def started(program: str, how: str, **fields) -> Llama:
    return Llama(prompts=["hi"], binary=program, model=str(Path(program).parent / how), **fields)


@pytest.mark.parametrize(("how", "status"), [("dies", "exit status 3"), ("crashes", "killed by SIGSEGV")])
async def test_a_server_that_dies_in_an_answer_ends_the_workload_with_its_last_words(program, how, status):
    hub = Hub()
    with pytest.raises(DeviceError, match=f"ended by itself, {status}") as raised:
        await started(program, how).collect(hub.outlet("w"))
    recorded = Recorded(hub)
    assert ("GGML_ASSERT: out of luck" in str(raised.value)) == (how == "dies")
    assert [row["index"] for row in recorded.events("token")] == [0, 1]
    assert len(recorded.events("request_error")) == 1


async def test_a_server_that_cannot_load_says_why(program):
    with pytest.raises(DeviceError, match=r"exit status 1;(?s:.*)error: not a model"):
        await started(program, "broken").collect(Hub().outlet("w"))


async def test_load_is_from_the_start_of_the_program_to_its_first_good_health(program):
    hub = Hub()
    with pytest.raises(DeviceError):
        await started(program, "dies", concurrency=2, n_ctx=100).collect(hub.outlet("w"))
    recorded = Recorded(hub)
    kinds = [row["kind"] for row in recorded.tables["w.events"]]
    assert kinds[:3] == ["load_start", "load_end", "request_sent"]
    assert recorded.facts["threads"] == 1


async def test_a_program_that_is_not_there_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="expected a llama-server that starts"):
        await started(str(tmp_path / "none"), "m").collect(Hub().outlet("w"))


async def test_no_server_outlives_a_recorder_killed_with_9(program, tmp_path):
    script = """
        import sys, trio
        from melt_stream.collectors.llama import Llama
        from melt_stream.outlet import Hub
        trio.run(Llama(prompts=["hi"], binary=sys.argv[1], model=sys.argv[2]).collect, Hub().outlet("w"))
    """
    await check_nobody_outlives(script, program, str(tmp_path / "hangs"), alive=tmp_path / "alive")


# The real thing.

needs_model = pytest.mark.skipif(not Llama().check().ok, reason=f"no embedded model: {Llama().check().what}")


@pytest.mark.model
@needs_model
async def test_the_embedded_model_answers():
    questions = ["Say yes.", "Repeat exactly these: 🦄🦄 日本語"]
    recorded = await run(Llama(prompts=questions, max_tokens=8, ignore_eos=True, keep_text=True, n_batch=32))
    rows = recorded.events("token")
    assert {n: sum(r["count"] for r in rows if r["request"] == n) for n in (1, 2)} == {1: 8, 2: 8}
    assert any(not row["visible"] for row in rows), "the first token of a unicorn has no text"
    for number, (end, reading) in enumerate(zip(recorded.detail("request_end"), (1, 2), strict=True), 1):
        own = [row for row in rows if row["request"] == reading]
        told = end["timings"]
        assert own[-1]["tick"] == round((told["prompt_ms"] + told["predicted_ms"]) * 1000)
        assert end["usage"]["completion_tokens"] == 8
        progress = [r for r in recorded.events("prefill_progress") if r["request"] == number]
        assert (
            progress[-1]["prompt_processed"] == progress[-1]["prompt_total"] == end["usage"]["prompt_tokens"]
        )
        assert len(progress) == -(-end["usage"]["prompt_tokens"] // 32)
    assert recorded.facts["quantisation"] == "Q4_1"
    assert recorded.facts["threads"] == 1
    start, stop = (recorded.events(kind)[0]["tick"] for kind in ("load_start", "load_end"))
    assert 0.05e9 < stop - start < 60e9


@pytest.mark.model
@needs_model
async def test_the_embedded_server_ends_with_its_stdin_and_serves_a_url_until_then():
    from melt_stream.collectors._llama_server import embedded_command, packaged_model

    command = embedded_command(packaged_model(), threads=1, n_ctx=256, n_batch=64, slots=1)
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with trio.fail_after(30):
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.receive_some()
        url = said.decode().removeprefix("listening on ").strip()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/health")).status_code == 200
        recorded = await run(one(url, max_tokens=2))
        assert recorded.events("load_start") == []
        await process.stdin.aclose()
        assert await process.wait() == 0


@pytest.mark.model
@needs_model
async def test_a_file_that_is_no_model_is_named_by_the_server_itself(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"nothing")
    with pytest.raises(DeviceError, match=r"exit status 1;(?s:.*)Failed to init server"):
        await Llama(model=str(tmp_path / "no.gguf")).collect(Hub().outlet("w"))

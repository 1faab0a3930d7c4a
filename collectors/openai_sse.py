"""Workload ``openai_sse``: prompts answered by any OpenAI-compatible server; token times are arrival times."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import httpx

from melt_stream.collector import Health
from melt_stream.collectors._asking import Asking, Request, plainly
from melt_stream.collectors._chat import END, Chunk, parse
from melt_stream.collectors._prompts import Question
from melt_stream.collectors._sse import Arrivals
from melt_stream.errors import ConfigError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet


@dataclass
class OpenaiSse(Asking):
    """Ask ``<url>/chat/completions`` and stamp the tokens when they arrive, network and client included.

    Nothing is said about when prefill began. A piece with text counts as one token, unless the server tells the
    usage so far in each (vLLM's ``continuous_usage_stats``); what its final usage has beyond that (EOS, pieces of
    several tokens) is one last ``token`` row with ``visible`` False. For a llama.cpp server ``llama`` is better.
    """

    url: str
    """Up to the version, such as ``http://127.0.0.1:8000/v1``."""
    _: KW_ONLY
    model: str = ""
    """The model's name there; left out of the request where empty."""
    api_key_env: str = ""
    """The environment variable that holds the key, so that no recipe and no run does."""

    ignore_eos: bool = False
    """Ask for ``max_tokens`` whatever the model says: vLLM and llama.cpp know that, and a server that does not may refuse."""

    @staticmethod
    def example() -> dict[str, Any]:
        pieces = [
            '{"choices": [{"index": 0, "delta": {"content": "Good"}}]}',
            '{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
        ]
        answer = "".join(f"data: {piece}\n\n" for piece in [*pieces, END])
        config = {"url": "{url}/v1", "prompts": ["Good morning"]}
        return {"kind": "http", "replies": {"/v1/chat/completions": answer}, "config": config}

    def check(self) -> Health:
        """Tell whether it is configured; asks nobody."""
        if self.api_key_env and self.api_key_env not in os.environ:
            return Health(
                False, f"the environment has no {self.api_key_env}", f"export {self.api_key_env}=..."
            )
        return Health(True, self.url)

    def prepare(self) -> None:
        super().prepare()
        if not (found := self.check()).ok:
            raise ConfigError(f"api_key_env: {found.what}; try: {found.cure}")

    async def collect(self, out: Outlet) -> None:
        key = os.environ.get(self.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        out.fact("server", self.url)
        with plainly():
            async with self.reached(out, self.url), self.client(self.url, headers) as client:
                await self.ask_all(out, partial(self._ask, out, client))

    async def _ask(self, out: Outlet, client: httpx.AsyncClient, question: Question) -> str | None:
        body = {
            "messages": self.messages(question), "max_tokens": self.limit(question), "temperature": self.temperature,
            "seed": self.seed, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if self.model:
            body["model"] = self.model
        if self.ignore_eos:
            body["ignore_eos"] = True
        return await self.exchange(
            out, client, "chat/completions", question, body,
            lambda request: ArrivalAnswer(out, request, keep_text=self.keep_text),
            Arrivals.events,
        )  # fmt: skip


class ArrivalAnswer:
    """One answer, as rows on the host's clock, stamped with the arrival of each piece."""

    def __init__(self, out: Outlet, request: Request, *, keep_text: bool) -> None:
        self.complete = False
        self.text = ""
        self._out, self._request, self._keep_text = out, request, keep_text
        self._count = 0
        self._last = 0
        self._detail: dict[str, Any] = {"times": "arrival"}

    def take(self, arrival: int, data: str) -> None:
        if data == END:
            self.complete = True
            return
        chunk = parse(data)
        self.text += chunk.content
        told = chunk.usage.completion_tokens if chunk.usage else None
        if chunk.text or any(choice.delta.tool_calls for choice in chunk.choices):
            self._token(arrival, max(told or 0, self._count + 1), chunk.text)
        if chunk.finish:
            self.complete = True
            self._detail["finish"] = chunk.finish
            self._last = arrival
        self._note(chunk)

    def close(self) -> dict[str, Any]:
        told = self._detail.get("usage", {}).get("completion_tokens", 0)
        if self.complete and told > self._count:
            self._token(self._last, told, None)
        return self._detail

    def _note(self, chunk: Chunk) -> None:
        if chunk.usage:
            self._detail["usage"] = chunk.usage.model_dump(exclude_none=True)
        if chunk.model:
            self._detail["model"] = chunk.model

    def _token(self, arrival: int, total: int, text: str | None) -> None:
        count, self._count, self._last = total - self._count, total, arrival
        self._out.row(
            EVENTS, tick=arrival, kind="token", request=self._request.number, index=total - 1, count=count,
            visible=text is not None, arrival_ns=arrival, text=text if self._keep_text else None,
        )  # fmt: skip

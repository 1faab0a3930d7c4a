"""Asking a server: what is asked, how often, how many at once, and what becomes of each request."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Annotated, Any, NamedTuple, Protocol, Self

import httpx
import trio
from pydantic import Field, PositiveFloat, PositiveInt

from melt_stream.collectors._arrival import Arrival, moments
from melt_stream.collectors._cutting import Count, cut_to_tokens, nobody_counts
from melt_stream.collectors._prompts import DEFAULT_PROMPTS, Message, Question, questions_of
from melt_stream.collectors._reached import Opened, Reached, Through, forwarded
from melt_stream.collectors._sse import Arrivals
from melt_stream.collectors._turns import Ask, Context, Turns, conversations
from melt_stream.devices import Place
from melt_stream.errors import DeviceError
from melt_stream.events import EVENTS
from melt_stream.failures import failures
from melt_stream.outlet import Outlet


class Request(NamedTuple):
    """A question as it goes out."""

    question: Question
    number: int
    sent: int
    """Host time just before it is sent, ns."""


class Answer(Protocol):
    """Turns one answer's pieces into rows; no I/O."""

    complete: bool
    """The answer's end mark was seen."""
    text: str
    """What was answered so far, without reasoning."""

    def take(self, arrival: int, data: str) -> None:
        """Take one piece. Raises ``DeviceError`` where it is not what the protocol says."""

    def close(self) -> dict[str, Any]:
        """Write what was held back; return what the end event tells (finish reason, usage)."""


Read = Callable[[Arrivals], AsyncGenerator[tuple[int, str], None]]


@dataclass
class Asking:
    """The fields that every workload has which asks a server; not a workload itself."""

    _: KW_ONLY
    prompts: list[str | list[str]] | str = field(
        default_factory=lambda: list[str | list[str]](DEFAULT_PROMPTS)
    )
    """The prompts, of which a list in the list is a conversation; or the path of a file of them (``.json``, ``.jsonl``, ``.csv``, or a
    prompt a line); or ``humaneval:``; or ``synthetic:tokens=128,output=64,count=10,seed=1``."""
    context: Context = "cleared"
    """With each turn of a conversation, send those before it and their answers (``kept``), or not."""
    system: str = ""
    """A system message before each prompt that has none of its own; none where empty."""
    max_tokens: PositiveInt = 64
    temperature: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 1
    repeat: PositiveInt = 1
    """How often the whole list is asked."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Requests asked first, one after another, in the phase ``warmup``; they are not part of ``repeat``."""
    concurrency: PositiveInt = 1
    """Requests under way at once: the next is asked when one has been answered; each is of another conversation. With ``rate``, what
    the server is started for."""
    rate: PositiveFloat | None = None
    """Requests sent a second, whether the ones before have been answered or not; conversations begun a second, where there are any."""
    arrival: Arrival = "fixed"
    """With ``rate``: in equal steps, or (``poisson``) at random moments, drawn with ``seed``."""
    keep_text: bool = False
    """Store the prompts and the answers' text."""
    timeout: PositiveFloat = 120.0
    """Seconds in which a server may send nothing before the request counts as failed."""
    reach_timeout: PositiveFloat = 60.0
    """Seconds in which a device must be reached again where its link was gone."""
    place: Place | None = field(default=None, init=False, repr=False, compare=False)
    """The device that the server runs on, where that is not for the url to say."""
    _reached: Reached | None = field(default=None, init=False, repr=False, compare=False)

    def on(self, place: Place) -> Self:
        """Return one that asks the server on a device: ``url`` is then a port on the device's own loopback."""
        made = replace(self)
        made.place = place
        return made

    @asynccontextmanager
    async def reached(self, out: Outlet, url: str, opened: Opened | None = None) -> AsyncIterator[None]:
        """While the body runs, the server on the device is reached, and reached again where the link was gone.

        ``opened`` says how, where it takes more than a forwarded port.
        """
        if self.place is None:
            yield
            return
        device = self.place.device
        self._reached = Reached(device.name, opened or forwarded(device, url), self.reach_timeout, out)
        async with self._reached.kept():
            yield

    def questions(self) -> list[Question]:
        """Return what is asked, once through. Raises ``ConfigError``."""
        return questions_of(self.prompts)

    def prepare(self) -> None:
        """Raise ``ConfigError`` for prompts that cannot be read, before anything is started."""
        self.questions()

    def messages(self, question: Question) -> list[Message]:
        """Return the chat messages that ask ``question``, after what was said before it."""
        told = self.system if question.system is None else question.system
        system = [{"role": "system", "content": told}] if told else []
        return [*system, *(question.history or ()), {"role": "user", "content": question.text}]

    def limit(self, question: Question) -> int:
        """Return how many tokens the answer may have."""
        return self.max_tokens if question.max_tokens is None else question.max_tokens

    async def alive(self, client: httpx.AsyncClient) -> bool:  # noqa: ARG002 - whoever can ask does
        """Tell whether the server can still be reached, after a request that failed; False where nobody can tell."""
        return False

    async def ask_all(self, out: Outlet, ask: Ask, count: Count = nobody_counts) -> None:
        """Ask the warm-up questions, each by itself, then all, the turns of a conversation in order.

        A request that fails does not end the workload. Raises ``DeviceError`` if not one of them succeeded.
        """
        questions = await cut_to_tokens(out, self.questions(), count)
        if self.warmup:
            out.row(EVENTS, kind="phase_start", name="warmup")
            try:
                for question in itertools.islice(itertools.cycle(questions), self.warmup):
                    await ask(question._replace(warmup=True))
            finally:
                out.row(EVENTS, kind="phase_end", name="warmup")
        times = [[q._replace(repetition=n) for q in questions] for n in range(1, self.repeat + 1)]
        found = [turns for asked in times for turns in conversations(asked)]
        asking = Turns(out, ask, self.context)
        if self.rate is None:
            await asking.side_by_side(found, self.concurrency)
        else:
            await asking.at(found, moments(self.arrival, self.rate, self.seed))
        if None not in asking.outcomes:
            raise DeviceError(
                f"expected answers, got none to {len(asking.outcomes)} requests; the last: {asking.outcomes[-1]}"
            )

    def client(self, url: str, headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
        """Return a client of ``url`` that waits ``timeout`` for bytes, a new connection each time, never compressed.

        Certificates are checked, and loaded only where they are needed: that takes 20 ms of everybody's time.
        """
        limits = httpx.Limits(max_keepalive_connections=0)  # servers hang up on idle ones as they are used
        through = Through(self._reached, limits) if self._reached else None
        return httpx.AsyncClient(
            base_url=url, verify=url.startswith("https:"), timeout=self.timeout, limits=limits, trust_env=False,
            transport=through, headers={"Accept-Encoding": "identity", **(headers or {})},
        )  # fmt: skip

    async def exchange(
        self,
        out: Outlet,
        client: httpx.AsyncClient,
        path: str,
        question: Question,
        body: dict[str, Any],
        answer: Callable[[Request], Answer],
        read: Read,
    ) -> str | None:
        """Send one request and take its answer; return why it failed, or None.

        Always ends in one row, ``request_end`` or ``request_error``, also when cancelled; what came is kept.
        """
        if self._reached:
            await self._reached.there()
        request = Request(question, out.next_request(), out.now())
        told = {
            "model": body.get("model"),
            "max_tokens": self.limit(question),
            "temperature": self.temperature,
        }
        told |= {"seed": self.seed, "warmup": question.warmup}
        if question.conversation is not None:
            told |= {"conversation": question.conversation, "turn": question.turn, "context": self.context}
            told |= {"repetition": question.repetition}
        if self.keep_text:
            told["prompt"] = question.text
        out.row(
            EVENTS, tick=request.sent, kind="request_sent", request=request.number, name=question.name,
            detail=json.dumps(told),
        )  # fmt: skip
        failure: str | None = "cancelled"
        taken = answer(request)
        try:
            failure = await _fetch(out, client, path, body, taken, read, self._reached)
        finally:
            detail = taken.close() | ({"error": failure} if failure else {})
            kind = "request_error" if failure else "request_end"
            out.row(EVENTS, kind=kind, request=request.number, name=question.name, detail=json.dumps(detail))
        if not failure:
            question.heard(taken.text)
        if failure and self._reached and self._reached.is_there and not await self.alive(client):
            self._reached.doubt()
        return failure


async def _fetch(
    out: Outlet,
    client: httpx.AsyncClient,
    path: str,
    body: dict[str, Any],
    answer: Answer,
    read: Read,
    reached: Reached | None,
) -> str | None:
    failures: list[str] = []
    scope = trio.CancelScope()

    def stop(why: str) -> None:
        failures.append(why)
        scope.cancel()

    try:
        with reached.asked(stop) if reached else nullcontext(), scope:
            async with client.stream("POST", path, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    return f"HTTP {response.status_code}: {(await response.aread())[:500].decode(errors='replace')}"
                async with aclosing(read(Arrivals(response, out.now, stop))) as pieces:
                    async for arrival, data in pieces:
                        if not failures:
                            _take(answer, arrival, data, stop)
    except (httpx.HTTPError, DeviceError) as exc:
        failures.append(f"{type(exc).__name__}: {exc}" if isinstance(exc, httpx.HTTPError) else str(exc))
    if not failures and not answer.complete:
        failures.append("the answer ended without its end mark: the server or the line broke off")
    return failures[0] if failures else None


def _take(answer: Answer, arrival: int, data: str, stop: Callable[[str], None]) -> None:
    try:
        answer.take(arrival, data)
    except DeviceError as exc:
        stop(str(exc))


@contextmanager
def plainly() -> Iterator[None]:
    """Raise what failed in the body by itself, without the groups that nurseries put around it."""
    caught: list[BaseException] = []
    with failures(caught.append):
        yield
    if caught:
        raise caught[0]

"""Recording from a script that is not Trio: the engine runs in a thread, the script says what it is doing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import trio

from melt_stream.analysis.pack import pack
from melt_stream.engine import Ending, record
from melt_stream.errors import MeltError
from melt_stream.harness.script import Answer, Script
from melt_stream.plugins import COLLECTORS, configure, load
from melt_stream.run import Run, RunFolder, create
from melt_stream.sink import Sink
from melt_stream.sinks.journal import Journal

SCRIPT = "script"
"""Instance name of what the script says, stored as ``script.events``."""


@contextmanager
def recording(
    archive: str | PathLike[str] = "melt-archive",
    collectors: Mapping[str, Any] | None = None,
    *,
    sinks: Sequence[Sink] = (),
    devices: Mapping[str, str] | None = None,
    baseline: float = 0.0,
    start_timeout: float = 30.0,
    name: str = "",
    tags: Sequence[str] = (),
) -> Iterator[Recording]:
    """Record while the body runs, then pack the run into ``archive``.

    ``collectors`` by instance name: a collector, or a mapping of the fields of the plug-in of that name (or of that
    called ``kind`` in it), as in a recipe. The body starts when every required collector is ready and ``baseline``
    seconds of idle are over; as many follow it. Raises ``ConfigError`` before anything starts, and ``MeltError`` where
    recording failed, after the body and with what was recorded packed::

        with melt_stream.recording("melt-archive", {"rapl": {}}) as rec:
            with rec.phase("warm-up"):
                model.generate("hello")
            with rec.request("prompt 1") as answer:
                for word in model.stream("Why is the sky blue?"):
                    answer.token(word)
        print(rec.run.path)
    """
    made = {key: _made(key, value) for key, value in (collectors or {}).items()}
    folder = create(Path(archive), recipe={"script": True, "collectors": sorted(made)}, name=name, tags=tags)
    rec = Recording(folder)
    run = partial(
        record, made, [Journal(folder), *sinks], {SCRIPT: rec.script}, devices=devices, baseline=baseline,
        start_timeout=start_timeout,
    )  # fmt: skip
    thread = threading.Thread(target=rec.record, args=(run,), name="melt_stream recording")
    thread.start()
    try:
        rec.script.started.wait()
        if rec.ending is None:
            yield rec
    finally:
        rec.script.end()
        thread.join()
        rec.finish()
    if rec.error is not None:
        raise MeltError(
            f"recording failed: {rec.error}; what was recorded is kept in {folder.path}"
        ) from rec.error


@dataclass
class Recording:
    """What a script says while it is recorded. Every method may be called from any thread; times are the caller's."""

    folder: RunFolder
    run: Run | None = None
    """The packed run, once the recording is over."""
    ending: Ending | None = None
    error: BaseException | None = None
    script: Script = field(default_factory=Script, repr=False)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what happens in the body: ``warmup``, ``tail``, or a name of your own."""
        self.script.say("phase_start", name=name)
        try:
            yield
        finally:
            self.script.say("phase_end", name=name)

    def mark(self, name: str = "") -> None:
        """Note a moment."""
        self.script.say("mark", name=name)

    @contextmanager
    def request(self, name: str = "", *, prompt_tokens: int | None = None) -> Iterator[Answer]:
        """One prompt and its answer: from the start to the first token is prefill, what follows is decode."""
        answer = Answer(self.script, name)
        answer.begin(prompt_tokens)
        try:
            yield answer
        except BaseException as exc:
            answer.end("request_error", error=f"{type(exc).__name__}: {exc}")
            raise
        answer.end("request_end")

    def token(self, text: str | None = None, *, count: int = 1) -> None:
        """Note a token (or ``count`` at once) of no request in particular: they all belong to one of their own."""
        self.script.loose.token(text, count=count)

    def record(self, run: Any) -> None:
        """Run the engine; the thread's target."""
        try:
            self.ending = trio.run(run)
            self.error = self.ending.error
        except BaseException as exc:  # noqa: BLE001 - it is raised in the script's thread
            self.error = exc
        finally:
            self.ending = self.ending or Ending(f"failed: {self.error}", self.error)
            self.script.started.set()

    def finish(self) -> None:
        """Close the run's folder and pack it."""
        ending = self.ending or Ending("ended")
        self.folder.finish(ending.reason, exit_status=ending.exit_status)
        self.run = pack(self.folder.path)


def _made(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    fields = {key: field for key, field in value.items() if key != "kind"}
    return configure(load(COLLECTORS, str(value.get("kind", name))), fields, f"collectors.{name}")

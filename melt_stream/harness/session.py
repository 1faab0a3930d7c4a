"""A session: a checked plan, or somebody else's recording, becomes a run of the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from melt_stream.analysis.pack import pack
from melt_stream.engine import Ending, record
from melt_stream.harness.introduced import introduced
from melt_stream.harness.placed import placed, places
from melt_stream.plugins import configure, load
from melt_stream.recipe import Plan
from melt_stream.run import Run, RunFolder, create, find
from melt_stream.sink import Sink
from melt_stream.sinks.journal import Journal


@dataclass(frozen=True)
class Outcome:
    """What became of a recording: where it is, and how it ended."""

    path: Path
    ending: Ending


def record_plan(plan: Plan, archive: Path, *, sinks: Sequence[Sink] = ()) -> Outcome:
    """Record a plan into a new run; blocks until it has ended in order.

    Raises ``ConfigError`` before anything starts where the archive cannot be written. A failure while recording is
    not raised but stands in the outcome's ending: what was recorded is kept.
    """
    there = places(plan.recipe)
    plan = placed(plan, there)
    devices = trio.run(introduced, plan.recipe.device, there)
    with folder_of(plan, archive, devices=devices) as folder:
        ending = trio.run(recorded, plan, folder, sinks)
        finish(folder, ending)
    return Outcome(folder.path, ending)


def folder_of(
    plan: Plan,
    archive: Path,
    *,
    devices: dict[str, Any] | None = None,
    cell: str = "",
    study: dict[str, Any] | None = None,
) -> RunFolder:
    """Make the folder of a run of a plan, with what its ``devices`` said that they are; of a study's, with what the run is in it."""
    recipe = plan.recipe
    folder = create(
        archive,
        recipe=asdict(recipe),
        name=recipe.name,
        devices=devices,
        cell=cell,
        study=study,
        tags=recipe.tags,
    )
    folder.manifest.note, folder.manifest.models = recipe.note, plan.models
    folder.manifest.conditions = recipe.conditions
    return folder


async def recorded(
    plan: Plan,
    folder: RunFolder,
    sinks: Sequence[Sink] = (),
    deadline: float = float("inf"),
) -> Ending:
    """Record a plan, placed, into a folder; return how it ended."""
    recipe = plan.recipe
    return await record(
        plan.collectors,
        [Journal(folder), *sinks],
        plan.workloads,
        devices=plan.devices,
        seconds=recipe.seconds or float("inf"),
        baseline=recipe.baseline_s,
        start_timeout=recipe.start_timeout_s,
        deadline=deadline,
        marker=plan.marker,
    )


def finish(folder: RunFolder, ending: Ending) -> None:
    """Make a run final: it ended so."""
    folder.finish(ending.reason, error=ending.error, signal=ending.signal, exit_status=ending.exit_status)


def import_recording(kind: str, path: Path, archive: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Import a recording of another tool into a new run, and return its folder; ``settings`` are the importer's other fields.

    Raises what the importer raises (``ConfigError``, ``DataError``); no half-imported run is left behind.
    """
    values = {**(settings or {}), "path": str(path)}
    importer = configure(load("melt_stream.importers", kind), values, f"import {kind}")
    recipe = {"import": {"kind": kind, **values}}
    with create(archive, recipe=recipe, name=path.resolve().name, imported=kind, now=_epoch) as folder:
        ending = trio.run(partial(record, {kind.replace("-", "_"): importer}, [Journal(folder)], now=_epoch))
        folder.manifest.start_utc_ns = getattr(importer, "start_utc_ns", None) or folder.manifest.start_utc_ns
        finish(folder, ending)
    if ending.error is not None:
        Run(folder.path).remove()
        raise ending.error
    return folder.path


def packed_run(archive: Path, name: str) -> Run:
    """Find a run, and pack it first where that was not done yet."""
    found = find(archive, name)
    return found if found.state == "packed" else pack(found.path)


def _epoch() -> int:
    """The time axis of an import begins at 0; the importer stamps every row itself."""
    return 0

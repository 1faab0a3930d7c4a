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
from melt_stream.harness.placed import link, placed, places
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
    recipe = plan.recipe
    there = places(recipe)
    plan = placed(plan, there)
    said = trio.run(introduced, there) if there else {}
    devices = {name: link(recipe.device[name]) | told for name, told in said.items()}
    with create(
        archive, recipe=asdict(recipe), name=recipe.name, tags=recipe.tags, devices=devices
    ) as folder:
        folder.manifest.note, folder.manifest.conditions = recipe.note, recipe.conditions
        recording = partial(
            record,
            plan.collectors,
            [Journal(folder), *sinks],
            plan.workloads,
            devices=plan.devices,
            seconds=recipe.seconds or float("inf"),
            baseline=recipe.baseline_s,
            start_timeout=recipe.start_timeout_s,
            marker=plan.marker,
        )
        ending = trio.run(recording)
        _finish(folder, ending)
    return Outcome(folder.path, ending)


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
        _finish(folder, ending)
    if ending.error is not None:
        Run(folder.path).remove()
        raise ending.error
    return folder.path


def packed_run(archive: Path, name: str) -> Run:
    """Find a run, and pack it first where that was not done yet."""
    found = find(archive, name)
    return found if found.state == "packed" else pack(found.path)


def _finish(folder: RunFolder, ending: Ending) -> None:
    folder.finish(ending.reason, error=ending.error, signal=ending.signal, exit_status=ending.exit_status)


def _epoch() -> int:
    """The time axis of an import begins at 0; the importer stamps every row itself."""
    return 0

"""What ``run`` and ``record`` share: record a plan, pack it, tell how it ended."""

from __future__ import annotations

from pathlib import Path

from melt_stream.analysis import marker_notes
from melt_stream.cli import _progress
from melt_stream.cli._app import FAILED
from melt_stream.cli._common import Options, say
from melt_stream.harness.session import Outcome, record_plan
from melt_stream.recipe import Plan
from melt_stream.run import Run


def record_and_tell(plan: Plan, options: Options) -> Outcome:
    """Record; where it failed, say why and what is kept."""
    outcome = record_plan(plan, options.folder, sinks=_progress.sinks(options.json))
    if outcome.ending.error is not None:
        say(
            f"melt-stream: the run ended early: {outcome.ending.reason}; what was recorded is kept in {outcome.path}"
        )
    return outcome


def tell_of_markers(run: Run) -> None:
    """Say it loudly where a marker contradicts a clock."""
    for warning in marker_notes.warnings(run):
        say(f"melt-stream: {warning}")


def status(outcome: Outcome) -> int:
    """Return 0 for a good end, else 1."""
    return FAILED if outcome.ending.error is not None else 0


def where(path: Path) -> dict[str, str]:
    """Return what ``--json`` prints of a new run."""
    return {"run": path.name, "path": str(path)}

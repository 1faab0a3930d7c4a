"""``melt-stream record``: collectors named on the command line, for a time or around a command."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from melt_stream import recipe as recipes
from melt_stream.analysis.pack import pack
from melt_stream.cli._common import NO_OPTIONS, Options, print_json, say
from melt_stream.cli._recording import record_and_tell, tell_of_markers, where
from melt_stream.cli._specs import entries
from melt_stream.errors import ConfigError, MeltError
from melt_stream.harness.zoo.references import planned

OWN_FAILURE = 125
"""Exit status of a failure of ours around a command, as ``env``, ``timeout`` and ``nohup`` have it."""


def record(
    *command: Annotated[str, Parameter(help="A command to run and to measure, after `--`.")],
    collector: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--collector", "-c"], negative="", help="NAME[:key=value,...]; can be given several times."
        ),
    ] = (),
    seconds: Annotated[float | None, Parameter(help="End after so many seconds.")] = None,
    baseline: Annotated[float, Parameter(help="Seconds of idle before and after the command.")] = 0.0,
    marker: Annotated[
        bool,
        Parameter(
            help="Play a marker (7 s of known load) at start and end: it checks the meters' clocks.",
            negative="",
        ),
    ] = False,
    name: Annotated[str, Parameter(help="A name for the run.")] = "",
    options: Options = NO_OPTIONS,
) -> int:
    """Record until the time is over, the command ends, or a signal comes (Ctrl-C ends in order).

    The exit status is the command's; 125 tells of a failure of melt-stream itself.
    """
    try:
        plan = _plan(command, collector, seconds, baseline, marker, name, options)
        outcome = record_and_tell(plan, options)
        packed = pack(outcome.path)
        tell_of_markers(packed)
    except MeltError as exc:
        if not command:
            raise
        say(f"melt-stream: {exc}")
        return OWN_FAILURE
    if options.json:
        print_json(where(packed.path))
    else:
        say(f"run     {packed.path}")
    if outcome.ending.error is not None:
        if isinstance(outcome.ending.error, ConfigError) and outcome.ending.exit_status:
            return outcome.ending.exit_status  # the command was not found (127) or may not be run (126)
        return OWN_FAILURE if command else 1
    return outcome.ending.exit_status or 0


def _plan(
    command: tuple[str, ...],
    specs: tuple[str, ...],
    seconds: float | None,
    baseline: float,
    marker: bool,
    name: str,
    options: Options,
) -> recipes.Plan:
    if not specs:
        raise ConfigError(
            "record: expected at least one -c NAME, got none; `melt-stream collectors` lists them"
        )
    data = {"collectors": entries(specs), "name": name, "baseline_s": baseline, "marker": marker}
    if seconds is not None:
        data["seconds"] = seconds
    if command:
        data["workloads"] = {
            "command": {"arguments": list(command), "stdout": "stderr" if options.json else "inherit"}
        }
    return planned(recipes.parse(data, "record"), "record")

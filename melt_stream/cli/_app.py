"""The commands by name, and what becomes of an error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points, version

from cyclopts import App, CycloptsError

from melt_stream.errors import ConfigError, Inconclusive, MeltError

FAILED, USAGE, INCONCLUSIVE = 1, 2, 3

COMMANDS = {
    "run": (
        "run_recipe:run",
        "Record a recipe, attribute its energy, write the report; or make what is left of a study.",
    ),
    "record": ("record:record", "Record collectors, for a time or around a command."),
    "energy": ("energy:energy", "Print the energy of a run by phase: joules, uncertainty, J/token."),
    "compare": (
        "compare:compare",
        "Compare runs, or groups of them: differences with intervals; budgets for CI.",
    ),
    "eval": ("evaluate:evaluate", "Tell how right a model is: perplexity, tasks of lm-evaluation-harness."),
    "report": ("report:report", "Write the report of a run or a study: one HTML file that needs no network."),
    "sql": ("sql:sql", "Ask SQL of one run or of the whole archive (read-only)."),
    "runs": ("runs:app", "List the runs of the archive; tag, note or remove one."),
    "import": ("importing:import_", "Import a recording that another tool made."),
    "config": ("config:app", "Translate a model's configuration between runtimes."),
    "export": ("export:export", "Write a run's tables as CSV or Parquet files."),
    "emulate": (
        "emulate:emulate",
        "Be an instrument on a pty or socket, playing a load, with faults to order.",
    ),
    "pack": ("pack:pack", "Turn a recorded run into Parquet and derive its energy (again)."),
    "zoo": ("zoo:app", "The models: list, pull, verify, info, rm; convert and quantize them."),
    "doctor": (
        "doctor:doctor",
        "Tell for each collector whether it works here, or why not and what would help.",
    ),
    "devices": (
        "devices:devices",
        "List phones and a recipe's devices: what each is, and who comes and goes.",
    ),
    "collectors": (
        "collectors:collectors",
        "List the collectors, workloads and importers and their settings.",
    ),
}


def build() -> App:
    """Return the application; no command's module is imported."""
    app = App(
        name="melt-stream",
        help="Joules per token: record power, devices and language-model inference, and say where the energy went.",
        version=lambda: version("melt-stream"),
        help_format="plaintext",  # the default imports a Markdown renderer: 0.1 s
        result_action="return_value",
    )
    for name, (target, text) in COMMANDS.items():
        app.command(f"melt_stream.cli.{target}", name=name, help=text)
    for plug_in in entry_points(group="melt_stream.commands"):
        app.command(plug_in.value, name=plug_in.name, help=f"(from {plug_in.module})")
    app.register_install_completion_command(help="Install shell completion for melt-stream.")
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; an error becomes one clear message on stderr."""
    try:
        status = build()(arguments, exit_on_error=False, print_error=True)
    except CycloptsError:
        return USAGE
    except ConfigError as exc:
        return _fail(exc, USAGE)
    except Inconclusive as exc:
        return _fail(exc, INCONCLUSIVE)
    except MeltError as exc:
        return _fail(exc, FAILED)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", FAILED)
    except Exception:  # noqa: BLE001 - the outermost frame: a fault of ours, told in full
        traceback.print_exc()
        return FAILED
    return int(status or 0)


def _fail(error: object, status: int) -> int:
    print(f"melt-stream: {error}", file=sys.stderr)
    return status

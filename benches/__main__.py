"""``python -m benches [NAME ...] [--quick] [--write]``: each bench in a process of its own, then their tables."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from benches import machine, table
from benches.figures import Figure, Target
from benches.measure import Effort

BENCHES = {
    "alignment": "Alignment: the energy of 1 M tokens out of 10 M samples",
    "journal": "Outlet, engine and journal: rows recorded and read back",
    "meters": "Meters: bytes to samples, and what reading them costs",
    "polling": "Poller: how late it reads, and what it costs",
    "host": "Cost of recording this host",
    "clocks": "Clock maps: is the truth within the bound, and how wide is it",
    "startup": "Start",
    "archive": "First query to an archive of 1,000 runs",
    "packing": "Packing",
    "report": "Report of a run of 1 M samples",
    "ppk2": "PPK2: words to columns",
    "together": "Three meters and the host recorded at once",
    "powersensor3": "PowerSensor3: sets to columns",
}
"""Modules of this package, and the titles of their tables."""


def main() -> int:
    """Run the benches that were asked for; 1 where one failed, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="run each briefly, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write the table into benches/README.md")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHES):
        parser.error(f"expected names among {', '.join(BENCHES)}, got {', '.join(sorted(unknown))}")
    if arguments.write and (arguments.quick or arguments.names):
        parser.error("--write is for all benches in full: leave --quick and the names out")
    names = arguments.names or list(BENCHES)
    if arguments.child:
        return child(names[0], Effort(arguments.quick))
    facts = machine.facts()
    results = {name: in_own_process(name, quick=arguments.quick) for name in names}
    good = {name: figures for name, figures in results.items() if figures is not None}
    if arguments.write and len(good) == len(names):
        table.write(table.page(facts, BENCHES, good))
    return 0 if len(good) == len(names) else 1


def child(name: str, effort: Effort) -> int:
    """Run one bench here; its figures are the last line of stdout."""
    figures: list[Figure] = list(importlib.import_module(f"benches.{name}").run(effort))
    print(json.dumps([asdict(figure) for figure in figures]))
    return 0


def in_own_process(name: str, *, quick: bool) -> list[Figure] | None:
    """Run one bench so that no other one's memory, caches or imports are in its figures; None where it failed."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benches", name, "--child", *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    print(f"\n{BENCHES[name]} ({name}, {time.perf_counter() - began:.1f} s)")
    if done.returncode:
        print(f"  FAILED: exit status {done.returncode}")
        return None
    figures = [_figure(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]
    show(figures, judge=not quick)
    return figures


def show(figures: Sequence[Figure], *, judge: bool) -> None:
    """Print figures for a person at a terminal, and where they should be if that can be told."""
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        target = figure.target if judge else None
        reach = "" if target is None else f"   to reach {target.sign} {figure.show(target.value)}"
        met = {None: "", True: ": met", False: ": NOT MET"}[figure.met if judge else None]
        print(f"  {figure.what:<{width}}  {figure.show(figure.median):>14}{reach}{met}", flush=True)


def _figure(*, target: dict[str, object] | None, **fields: object) -> Figure:
    return Figure(**fields, target=None if target is None else Target(**target))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())

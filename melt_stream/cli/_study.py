"""What ``melt-stream run`` does with a study: the plan before it, a line for each run, the sum after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from melt_stream.analysis.catalogue import Entry, outcome_of, seconds_of
from melt_stream.analysis.phase_rows import rows_of
from melt_stream.cli import _progress
from melt_stream.cli._app import FAILED
from melt_stream.cli._common import Options, print_json, print_table, say
from melt_stream.cli._study_plan import duration, rows_of_plan, totals
from melt_stream.harness.study import (
    Cell,
    Ledger,
    Slot,
    Study,
    conduct,
    expectations,
    ledger,
    slots,
)
from melt_stream.harness.study.conduct import Where
from melt_stream.run import Run
from melt_stream.sink import Sink


def run_study(study: Study, options: Options, *, plan: bool, retry_failed: bool, only: Sequence[str]) -> int:
    """Make what is left of a study, or of the cells that ``only`` names; with ``plan`` say what that is."""
    cells = study.only(only)
    if plan:
        _show_plan(study, cells, options)
        return 0
    done = conduct(study, options.folder, Telling(), cells=cells, retry_failed=retry_failed)
    return _sum_up(study, done.slots, done.book, options, interrupted=done.interrupted)


@dataclass
class Telling:
    """Tells on stderr what happens: a line that lives where that is a terminal, and a line for each run that has ended."""

    def sinks(self, slot: Slot, where: Where) -> Sequence[Sink]:
        return self._shown(slot, where, "")

    def waits(self, slot: Slot, where: Where) -> Sequence[Sink]:
        return self._shown(slot, where, "cooling down")

    def ended(self, slot: Slot, where: Where, entry: Entry) -> None:
        say(f"{title(slot, where)}: {', '.join(figures(entry))}")

    def _shown(self, slot: Slot, where: Where, what: str) -> Sequence[Sink]:
        left = "time left unknown" if where.left_s is None else f"{duration(where.left_s)} left"
        text = ", ".join(part for part in (title(slot, where), what, left) if part)
        live = _progress.sinks(quiet=False, title=text)
        if not live:
            say(text)
        return live


def title(slot: Slot, where: Where) -> str:
    """``[3/12] cell 2 of 4, threads=2, repetition 1``."""
    kind = "warm-up" if slot.warmup else "repetition"
    cell = f"cell {where.cell} of {where.cells}, {slot.cell.label}"
    return f"[{where.number}/{where.of}] {cell}, {kind} {slot.repetition}"


def figures(entry: Entry) -> list[str]:
    """What a run came to, in words; what is not known is left out."""
    outcome, seconds = outcome_of(entry), seconds_of(entry)
    said = [outcome if seconds is None else f"{outcome} after {duration(seconds)}"]
    if outcome == "failed":
        status = entry["exit"].get("status")
        why = entry["exit"].get("error") or f"the command's exit status was {status}"
        said.append(f"{entry['study'].get('failure', 'other')}: {why}")
    if entry["state"] == "packed":
        said += _rates(Run(Path(entry["path"])))
    if (celsius := entry["study"].get("cooldown", {}).get("celsius")) is not None:
        said.append(f"begun at {celsius:.0f} °C")
    return said


def _rates(run: Run) -> list[str]:
    rows = rows_of(run)
    rates = [row.tokens_per_s for row in rows if row.phase == "decode" and row.tokens_per_s]
    costs = [row for row in rows if row.phase == "request" and row.joules_per_token is not None]
    return [
        *([f"{fmean(rates):.3g} tokens/s"] if rates else []),
        *(f"{row.joules_per_token:.3g} J/token ({row.device}, {row.where})" for row in costs),
    ]


def _show_plan(study: Study, cells: Sequence[Cell], options: Options) -> None:
    wanted = slots(cells, study.table.order, study.table.seed)
    book = ledger(options.folder, [cell.id for cell in cells])
    rows = rows_of_plan(cells, wanted, book, expectations(cells, book))
    if options.json:
        print_json(
            {"study": study.name, "order": study.table.order, "cells": rows, "left": totals(rows).said}
        )
        return
    axes = [axis.name for axis in study.axes]
    columns = [*axes, "cell", "to do", "done", "failed", "skipped", "time/run", "energy/run", "disk/run"]
    print_table(f"study {study.name}, {study.table.order}", columns, [_cells(row, axes) for row in rows])
    print(totals(rows).text)


def _cells(row: dict[str, Any], axes: Sequence[str]) -> list[Any]:
    counts = [row[name] for name in ("to_do", "done", "failed", "skipped")]
    return [*(row["points"][axis] for axis in axes), row["cell"], *counts, *row["words"].values()]


def _sum_up(
    study: Study, wanted: Sequence[Slot], book: Ledger, options: Options, *, interrupted: bool
) -> int:
    states = Counter(book.state(slot) for slot in wanted)
    if options.json:
        counts = {name.replace(" ", "_"): states[name] for name in ("done", "failed", "skipped", "to do")}
        print_json(
            {"study": study.name, "archive": str(options.folder), "interrupted": interrupted, **counts}
        )
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    say(f"study {study.name}: {told}; ask: melt-stream sql \"FROM cells WHERE study = '{study.name}'\"")
    if interrupted:
        say("interrupted: the same command goes on where it stopped")
    elif states["failed"]:
        say("--retry-failed makes again what failed")
    return 0 if states["done"] == len(wanted) else FAILED

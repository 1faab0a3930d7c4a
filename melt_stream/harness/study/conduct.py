"""Making the runs of a study that are not done yet, one after the other, until none is left or somebody interrupts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from melt_stream.analysis.catalogue import Entry, entry_of, outcome_of
from melt_stream.analysis.pack import pack
from melt_stream.errors import ConfigError, MeltError
from melt_stream.harness.study.attempt import Attempt
from melt_stream.harness.study.cells import Cell
from melt_stream.harness.study.cooldown import Cooled, cool_down
from melt_stream.harness.study.expect import time_left
from melt_stream.harness.study.file import Study
from melt_stream.harness.study.ledger import Ledger, ledger
from melt_stream.harness.study.order import Slot, slots
from melt_stream.harness.study.planning import plan_of
from melt_stream.lock import locked
from melt_stream.run import Run
from melt_stream.sink import Sink

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Where in the study a run stands."""

    number: int
    """Of the runs that are wanted, from 1."""
    of: int
    cell: int
    """Of the cells, from 1."""
    cells: int
    left_s: float | None
    """Expected from this run's start to the study's end; None where nobody knows."""


class Observer(Protocol):
    """Who is told what happens; all of it between runs but for what its sinks are fed."""

    def sinks(self, slot: Slot, where: Where) -> Sequence[Sink]:
        """A run begins: return sinks that show it."""

    def waits(self, slot: Slot, where: Where) -> Sequence[Sink]:
        """A wait for the device to cool down begins: return sinks that show it."""

    def ended(self, slot: Slot, where: Where, entry: Entry) -> None:
        """A run has ended, and was packed unless it was interrupted; its manifest is ``entry``."""


@dataclass(frozen=True)
class Conducted:
    """What became of a study."""

    slots: list[Slot]
    book: Ledger
    interrupted: bool = False


def conduct(
    study: Study,
    archive: Path,
    observer: Observer,
    *,
    cells: Sequence[Cell] | None = None,
    retry_failed: bool = False,
) -> Conducted:
    """Make what is left of a study, or of some of its cells; with ``retry_failed`` also what has failed before.

    A run that fails is recorded as failed, and the study goes on. Interrupted at any moment, the same call goes on where
    it stopped. Raises ``Locked`` where another process makes this study in this archive.
    """
    cells = study.cells if cells is None else cells
    wanted = slots(cells, study.table.order, study.table.seed)
    with held(study.name, archive):
        book = ledger(archive, [cell.id for cell in study.cells])
        if retry_failed:
            book.forgive(slot for slot in wanted if book.state(slot) == "failed")
        first = True
        while left := [slot for slot in wanted if book.state(slot) == "to do"]:
            where = Where(
                wanted.index(left[0]) + 1,
                len(wanted),
                cells.index(left[0].cell) + 1,
                len(cells),
                time_left(left, book),
            )
            if _make(study, left[0], where, archive, observer, book, first=first):
                return Conducted(wanted, book, interrupted=True)
            first = False
    return Conducted(wanted, book)


@contextmanager
def held(name: str, archive: Path) -> Iterator[None]:
    """Keep other processes from making this study; dying lets go."""
    folder = archive / f".study-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{archive}: expected an archive folder that can be written, got {exc.strerror}"
        ) from exc
    with locked(
        folder, f"study {name}: expected it to be free, got its lock held: another process is making it"
    ):
        yield


def _make(
    study: Study, slot: Slot, where: Where, archive: Path, observer: Observer, book: Ledger, *, first: bool
) -> bool:
    """Make one run; return whether it, or the wait before it, was interrupted."""
    cooled = _cooled(slot, where, observer, first=first)
    if cooled is not None and cooled.ending.signal is not None:
        return True
    more = {} if cooled is None else {"cooldown": cooled.said}
    attempt = Attempt(study.name, slot, book.of(slot).attempts + 1)
    outcome = attempt.make(archive, observer.sinks(slot, where), **more)
    interrupted = outcome.ending.signal is not None
    if not interrupted:
        _pack(outcome.path)
    entry = entry_of(outcome.path)
    book.note(entry)
    observer.ended(slot, where, entry)
    return interrupted or outcome_of(entry) == "interrupted"


def _cooled(slot: Slot, where: Where, observer: Observer, *, first: bool) -> Cooled | None:
    wait = slot.cell.rules.wait(slot.cell.where)
    if not wait.collector and (first or not wait.seconds):
        return None
    plan = plan_of(slot.cell.configuration, slot.cell.where)
    return trio.run(cool_down, wait, plan, tuple(observer.waits(slot, where)))


def _pack(path: Path) -> None:
    try:
        pack(path)
    except MeltError as exc:  # the rows are kept; the study does not end for it
        log.warning("%s cannot be packed: %s", Run(path).id, exc)

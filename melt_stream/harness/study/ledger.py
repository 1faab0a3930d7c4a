"""What the archive says of a study: its runs' manifests, and nothing else, tell what is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from melt_stream.analysis.catalogue import Entry, catalogue, outcome_of, seconds_of
from melt_stream.harness.study.failure import HOPELESS, Failure
from melt_stream.harness.study.order import Slot

Key = tuple[str, bool, int]
State = Literal["done", "failed", "skipped", "to do"]


@dataclass
class History:
    """The runs of one slot so far."""

    done: list[str] = field(default_factory=list)
    """Paths of the runs that finished."""
    failures: list[Failure] = field(default_factory=list)
    interrupted: int = 0
    forgiven: int = 0
    """Failures that do not count any more, since the user asked for another try."""

    @property
    def attempts(self) -> int:
        """Runs made, however they ended."""
        return len(self.done) + len(self.failures) + self.interrupted

    def given_up(self, retries: int) -> Failure | None:
        """Why no more attempts are made; None where there are some left."""
        counted = self.failures[self.forgiven :]
        if "configuration" in counted:
            return "configuration"
        return counted[-1] if len(counted) > retries else None


@dataclass
class Ledger:
    """The history of each slot of a study, by cell, warm-up and repetition."""

    histories: defaultdict[Key, History] = field(default_factory=lambda: defaultdict(History))
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """How long each finished run of a cell took, with the wait before it."""

    def of(self, slot: Slot) -> History:
        """Return what became of a slot so far."""
        return self.histories[slot.key]

    def state(self, slot: Slot) -> State:
        """``skipped`` is a run of a cell in which another failed so that this one would too."""
        history = self.of(slot)
        if history.done:
            return "done"
        if history.given_up(slot.cell.rules.retries):
            return "failed"
        return "skipped" if self._hopeless(slot) else "to do"

    def note(self, entry: Entry) -> None:
        """Count one run of the study."""
        said = entry["study"]
        history = self.histories[entry["cell"], bool(said.get("warmup")), int(said.get("repetition", 0))]
        outcome = outcome_of(entry)
        if outcome == "done":
            history.done.append(entry["path"])
            waited = said.get("cooldown", {}).get("seconds", 0.0)
            self.seconds[entry["cell"]].append((seconds_of(entry) or 0.0) + waited)
        elif outcome == "failed":
            history.failures.append(said.get("failure") or "other")
        else:
            history.interrupted += 1

    def forgive(self, slots: Iterable[Slot]) -> None:
        """Give each of these that failed all its attempts again."""
        for slot in slots:
            history = self.of(slot)
            history.forgiven = len(history.failures)

    def runs(self, cell: str) -> list[str]:
        """Return the paths of a cell's finished runs."""
        return [path for key, history in self.histories.items() if key[0] == cell for path in history.done]

    def _hopeless(self, slot: Slot) -> bool:
        retries = slot.cell.rules.retries
        return any(
            history.given_up(retries) in HOPELESS
            for key, history in self.histories.items()
            if key[0] == slot.cell.id
        )


def ledger(archive: Path, cells: Sequence[str]) -> Ledger:
    """Read what an archive holds of some cells, by their ids."""
    made, wanted = Ledger(), frozenset(cells)
    for entry in catalogue(archive, ("cell", "study", "exit", "stop_ns")):
        if entry["cell"] in wanted:
            made.note(entry)
    return made

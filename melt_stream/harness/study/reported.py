"""A study's report: its runs, from the archive, as one page and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pyarrow.parquet as pq

from melt_stream.analysis.archive import connect, views
from melt_stream.analysis.catalogue import Entry, catalogue, outcome_of
from melt_stream.analysis.report import build
from melt_stream.analysis.study import Material, as_arrow, gather, page
from melt_stream.harness.session import packed_run
from melt_stream.run import Run

QUERIES = {
    "accuracy": "SELECT run, model, sha256, task, metric, value, stderr, higher_is_better FROM accuracy ORDER BY run",
    "qoe": "SELECT run, device, prompt_tokens, output_tokens, peak_rss, stalls, degenerate FROM qoe",
    "requests": "SELECT run, device, start_ns / 1e9 AS start_s, decode_tokens_per_s FROM requests WHERE NOT coalesce(warmup, false) ORDER BY run, start_ns",
}  # fmt: skip


def studies(archive: Path) -> list[str]:
    """Return the names of the studies that an archive has runs of."""
    return sorted({entry["study"]["name"] for entry in catalogue(archive) if entry["study"]})


def material(archive: Path, study: str, battery_j: float | None = None) -> Material:
    """Gather a study's runs; those that were not packed are packed first. ``battery_j``: of a charge."""
    entries = [entry for entry in catalogue(archive) if entry["study"].get("name") == study]
    runs = {entry["id"]: packed_run(archive, entry["id"]) for entry in entries if _counts(entry)}
    told = {"accuracy": _rows(archive, "accuracy")} if "accuracy" in views(archive) else {}
    told |= {view: _rows(list(runs.values()), view) for view in ("qoe", "requests")} if runs else {}
    return gather(study, entries, runs, told, battery_j)


def write(of: Material, archive: Path, out: Path) -> None:
    """Write the page to ``out``, and the report of each run that has none yet."""
    for cell in of.cells:
        for run in cell.side.runs if cell.side else ():
            if not (run.path / "report.html").exists():
                build(run, run.path / "report.html")
    beside = out.parent.resolve() == archive.resolve()
    out.write_text(page(of, "" if beside else f"{archive.resolve().as_uri()}/"), encoding="utf-8")


def write_tables(of: Material, folder: Path) -> list[Path]:
    """Write every table as CSV and as Parquet; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, table in as_arrow(of).items():
        pq.write_table(table, folder / f"{name}.parquet")
        pc.write_csv(table, folder / f"{name}.csv")
        made += [folder / f"{name}.parquet", folder / f"{name}.csv"]
    return made


def _counts(entry: Entry) -> bool:
    return outcome_of(entry) == "done" and not entry["study"].get("warmup")


def _rows(place: Path | Sequence[Run], view: str) -> list[dict[str, Any]]:
    query = QUERIES[view]
    rows: list[dict[str, Any]] = connect(place, query).sql(query).to_arrow_table().to_pylist()
    return rows

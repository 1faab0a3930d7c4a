"""Puts the page of a study together."""

from __future__ import annotations

import html

from melt_stream.analysis.compare.differing import differing
from melt_stream.analysis.report.shell import drawn_panel, rendered, section
from melt_stream.analysis.report.tables import table
from melt_stream.analysis.study import figures, tables
from melt_stream.analysis.study.gather import Material
from melt_stream.analysis.wording import count

NOTES = (
    "A figure is the geometric mean over the finished repetitions of its cell, warm-ups left out; its interval (95 %) holds their scatter by Student's t on logarithms "
    "and the meter's own uncertainty. With one repetition it is the meter's alone. No repetition is left out: those far from the others are named."
)


def page(of: Material, archive: str = "") -> str:
    """The whole HTML file of a study; ``archive`` is where its runs are, as an address that ends with ``/``: empty for beside the page."""
    drawn = list(figures.panels(of))
    return rendered(
        "Study",
        of.study,
        _subtitle(of),
        template="study.html",
        first="cells",
        panels=drawn,
        banner=_banner(of),
        cells=tables.cells_html(of, archive) + f'<ul class="notes">{_notes(of)}</ul>',
        matrix=tables.matrix_html(of),
        plots="".join(drawn_panel(panel, "") for panel in drawn),
        rest="".join(section(*part) for part in _rest(of, archive) if part[2]),
    )


def _rest(of: Material, archive: str) -> list[tuple[str, str, str]]:
    return [
        ("models", "Models and accuracy", tables.models_html(of)),
        ("differs", "What differs between cells", _differing(of)),
        ("runs", "Runs", tables.runs_html(of, archive)),
    ]


def _subtitle(of: Material) -> str:
    cells = len({cell.id for cell in of.cells})
    done = sum({cell.id: cell.counts["done"] for cell in of.cells}.values())
    return f"{count(cells, 'cell')}, {count(done, 'finished run')}, axes: {', '.join(of.axes) or 'none'}"


def _banner(of: Material) -> str:
    accounts = {account for cell in of.cells if cell.side for account in cell.side.accounts}
    said = []
    if any(estimated for _, estimated in accounts):
        said.append(
            "<strong>Estimated.</strong> Where a boundary says so, a model stands in for a sensor: that energy is not measured."
        )
    if len({boundary for boundary, _ in accounts}) > 1:
        said.append(
            "<strong>Several boundaries.</strong> Energies at the wall, the board and the battery are different answers: compare within one."
        )
    if not accounts:
        said.append("<strong>No power was measured.</strong> There are no joules in this report.")
    return "".join(f'<p class="banner" role="note">{words}</p>' for words in said)


def _notes(of: Material) -> str:
    said = [NOTES]
    if far := [run for cell in of.cells for run in cell.outliers]:
        said.append(
            f"Far from the other repetitions of their cell (modified z-score above 3.5), and kept: {', '.join(dict.fromkeys(far))}."
        )
    return "".join(f"<li>{html.escape(words)}</li>" for words in said)


def _differing(of: Material) -> str:
    sides = {cell.id: cell for cell in of.cells if cell.side is not None}
    rows = differing([cell.side for cell in sides.values() if cell.side is not None])
    if not rows:
        return ""
    headers = ["", *(cell.label for cell in sides.values())]
    return table(
        "Settings and environment that are not the same in all cells",
        headers,
        [[row.key, *row.values] for row in rows],
    )

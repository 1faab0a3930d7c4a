"""Puts the page of a run together."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow.compute as pc

from melt_stream.analysis.report import clock_figure, figures, power_figure, tables, token_figure
from melt_stream.analysis.report.figures import Panel
from melt_stream.analysis.report.gather import Group, Material
from melt_stream.analysis.report.shell import drawn_panel, rendered, section
from melt_stream.analysis.wording import count, seconds
from melt_stream.manifest import Manifest

_CLOCKS = (
    "Zero is the map that placed this clock on the host's time line. Each reading says between what the truth lies; "
    "the band is the bound that all of them leave, at its widest."
)


def page(of: Material) -> str:
    """The whole HTML file of one run."""
    panels, over_time, per_token = _panels(of)
    clocks = clock_figure.residuals(of.readings, of.tables["clocks"], of.manifest.start_ns, of.end_s)
    panels += [panel for panel, _ in clocks]
    return rendered(
        "Run",
        of.run,
        _subtitle(of),
        template="report.html",
        first="energy",
        panels=panels,
        banner=_banner(of),
        cards=tables.cards(of.summary),
        summary=tables.summary_table(of.summary),
        over_time=over_time,
        per_token=per_token,
        rest=_rest(of, "".join(drawn_panel(*drawn) for drawn in clocks)),
    )


def _subtitle(of: Material) -> str:
    requests = of.tables["requests"]
    models = dict.fromkeys(m for m in requests["model"].to_pylist() if m)
    words = [
        of.manifest.name,
        ", ".join(models),
        f"{len(requests)} requests" if len(requests) != 1 else "1 request",
    ]
    said = of.manifest  # of an imported run, the host is where it was imported, not what was measured
    words += [f"imported by {said.imported}" if said.imported else str(said.host.get("cpu", "")), _utc(said)]
    return " · ".join(w for w in words if w)


def _banner(of: Material) -> str:
    """What a reader must know before any number."""
    said = []
    drawn = [series for mine in of.power.values() for series in mine]
    if any(row.estimated for row in of.summary.rows) or (drawn and all(s.estimated for s in drawn)):
        said.append(
            "<strong>Estimated.</strong> A model stands in for a sensor: the energy in this report is not measured. "
            "It is drawn dotted and called estimated wherever it shows."
        )
    if not drawn:
        said.append("<strong>No power was measured.</strong> There are no joules in this report.")
    elif not of.summary.measured_power:
        said.append(
            "<strong>No joules.</strong> No phase of this run has energy; the power below stands alone."
        )
    return "".join(f'<p class="banner" role="note">{words}</p>' for words in said)


def _panels(of: Material) -> tuple[list[Panel], str, str]:
    """All panels, the HTML of those over time, and the HTML of the one over tokens."""
    phases, tokens = of.tables["phases"], of.tables["tokens"]
    devices = dict.fromkeys([*of.power, *phases["device"].to_pylist()])
    power, notes = [], []
    for device in devices:
        series = of.power.get(device, [])
        mine = phases.filter(pc.equal(phases["device"], device))
        power.append(power_figure.power(device, series, mine, tokens, of.end_s))
        notes.append(figures.spoken(series))
    streams = [figures.stream(g.key, g.title, g.unit, g.series, of.end_s) for g in of.streams]
    for panel in [*power, *streams][1:-1]:
        panel.figure["layout"]["xaxis"]["title"]["text"] = ""  # the first and the last say it for all
    notes += [" ".join(filter(None, [figures.spoken(g.series), *_not_drawn(g)])) for g in of.streams]
    over_time = "".join(map(drawn_panel, [*power, *streams], notes))
    boundaries = dict.fromkeys(r.where for r in of.summary.rows if r.phase == "decode" and r.boundary)
    per_token = token_figure.energy_per_token(tokens, "; ".join(boundaries))
    if per_token is None:
        words = (
            "No energy could be given to tokens in this run." if len(tokens) else "This run has no tokens."
        )
        return [*power, *streams], over_time, f"<p>{words}</p>"
    words = "Bands are ± one standard uncertainty of the token alone; tokens of one rail share most of it. A token that samples cover less than 99 % is left out."
    return [*power, *streams, per_token], over_time, drawn_panel(per_token, words)


def _not_drawn(group: Group) -> list[str]:
    said = [f"0 throughout: {', '.join(group.zero)}."] if group.zero else []
    return [*said, f"{count(group.left_out, 'more line')} not drawn."] if group.left_out else said


def _rest(of: Material, clocks: str) -> str:
    t = of.tables
    parts = [
        (
            "requests",
            "Requests",
            tables.requests_table(t["requests"]) if len(t["requests"]) else "",
        ),
        ("oracles", "Official results", tables.oracles_table(t["oracles"]) if len(t["oracles"]) else ""),
        (
            "gaps",
            "Gaps",
            tables.gaps_table(t["gaps"]) if len(t["gaps"]) else "<p>No gaps: every stream ran through.</p>",
        ),
        ("clocks", "Clocks", clocks and f"<p>{_CLOCKS}</p>{clocks}"),
        ("provenance", "Provenance", _provenance(of)),
    ]
    return "".join(section(id_, title, body) for id_, title, body in parts if body)


def _provenance(of: Material) -> str:
    said = of.manifest
    parts = [tables.facts(_facts(said))]
    if of.rails:
        parts.append(tables.rails_table(of.rails, of))
    if len(of.tables["clocks"]):
        parts.append(tables.clocks_table(of.tables["clocks"]))
    if said.facts:
        parts.append(tables.found_table(said.facts))
    folded = [
        ("Recipe", said.recipe), ("Versions", said.versions), ("Devices", said.devices), ("Conditions", said.conditions), ("Damage", said.damage),
        ("Rows of each stream", {name: stored.rows for name, stored in said.streams.items()}),
    ]  # fmt: skip
    return "".join([*parts, *(tables.folded(title, value) for title, value in folded if value)])


def _facts(said: Manifest) -> list[tuple[str, object]]:
    by = "imported on: " if said.imported else ""
    host = {f"{by}{name.replace('_', ' ')}": value for name, value in said.host.items()}
    length = None if said.stop_ns is None else seconds((said.stop_ns - said.start_ns) / 1e9)
    return [
        ("run", said.id), ("name", said.name), ("started", _utc(said)), ("length", length), ("imported by", said.imported),
        ("ended", ", ".join(f"{k} {v}" if k != "reason" else str(v) for k, v in said.exit.items() if v is not None)),
        ("state", said.state), ("tags", said.tags), ("note", said.note), *host.items(),
        ("melt_stream", said.versions.get("melt-stream")),
    ]  # fmt: skip


def _utc(said: Manifest) -> str:
    return f"{datetime.fromtimestamp(said.start_utc_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"

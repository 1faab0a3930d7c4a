"""Puts the page together: figures as JSON that cannot end its script element, tables as escaped HTML, and a
policy that lets nothing run but the page's own two scripts and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.compute as pc

from melt_stream.analysis.report import clock_figure, figures, power_figure, tables, token_figure
from melt_stream.analysis.report.figures import Panel
from melt_stream.analysis.report.gather import Group, Material
from melt_stream.analysis.wording import count, seconds
from melt_stream.manifest import Manifest

HERE = Path(__file__).parent
_CLOCKS = (
    "Zero is the map that placed this clock on the host's time line. Each reading says between what the truth lies; "
    "the band is the bound that all of them leave, at its widest."
)


def page(of: Material) -> str:
    """The whole HTML file of one run."""
    panels, over_time, per_token = _panels(of)
    clocks = clock_figure.residuals(of.readings, of.tables["clocks"], of.manifest.start_ns, of.end_s)
    panels += [panel for panel, _ in clocks]
    scripts = [plotly_script(), _own("report.js")]
    hashes = " ".join(f"'sha256-{_digest(s)}'" for s in scripts)
    drawn = {p.id: {"figure": p.figure, "linked": p.linked, "height": p.height} for p in panels}
    return Template(_own("report.html")).substitute(
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:",
        title=html.escape(f"Run {of.run}"),
        run=html.escape(of.run),
        subtitle=html.escape(_subtitle(of)),
        style=_own("report.css"),
        banner=_banner(of),
        cards=tables.cards(of.summary),
        summary=tables.summary_table(of.summary),
        over_time=over_time,
        per_token=per_token,
        rest=_rest(of, "".join(_panel(*drawn) for drawn in clocks)),
        figures=_json(drawn),
        plotly=scripts[0],
        script=scripts[1],
    )


@cache
def plotly_script() -> str:
    """``plotly.min.js`` as its wheel ships it, read without importing plotly."""
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    return _inline(path.read_text(encoding="utf-8"))


def _own(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _inline(script: str) -> str:
    """In a script element, ``</script`` would end it; a carriage return would change, and with it the hash."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON for a script element: every ``<`` as an escape, so that no text of a run can end it; no NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
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
    over_time = "".join(map(_panel, [*power, *streams], notes))
    boundaries = dict.fromkeys(r.where for r in of.summary.rows if r.phase == "decode" and r.boundary)
    per_token = token_figure.energy_per_token(tokens, "; ".join(boundaries))
    if per_token is None:
        words = (
            "No energy could be given to tokens in this run." if len(tokens) else "This run has no tokens."
        )
        return [*power, *streams], over_time, f"<p>{words}</p>"
    words = "Bands are ± one standard uncertainty of the token alone; tokens of one rail share most of it. A token that samples cover less than 99 % is left out."
    return [*power, *streams, per_token], over_time, _panel(per_token, words)


def _not_drawn(group: Group) -> list[str]:
    said = [f"0 throughout: {', '.join(group.zero)}."] if group.zero else []
    return [*said, f"{count(group.left_out, 'more line')} not drawn."] if group.left_out else said


def _panel(panel: Panel, note: str) -> str:
    id_ = html.escape(panel.id)
    words = f"<p>{html.escape(note)}</p>" if note else ""
    return (
        f'<figure id="fig-{id_}"><figcaption><h3>{html.escape(panel.title)}</h3>{words}</figcaption>'
        f'<div class="plot" data-figure="{id_}" role="img" aria-label="{html.escape(panel.describe)}" '
        f'style="height:{panel.height}px"></div></figure>'
    )


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
    return "".join(_section(id_, title, body) for id_, title, body in parts if body)


def _section(id_: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{id_}"><h2 id="{id_}">{title}</h2>{body}</section>'


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

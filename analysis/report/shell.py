"""What every page has: figures as JSON that cannot end its script element, and a policy that lets nothing run but the
page's own two scripts and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from melt_stream.analysis.report.figures import Panel

HERE = Path(__file__).parent


def rendered(
    kind: str, name: str, subtitle: str, *, template: str, first: str, panels: Iterable[Panel], **parts: str
) -> str:
    """Return a whole HTML file: ``kind`` and ``name`` (text) above a template beside this module with its ``parts`` (HTML).

    ``first`` is the id of its first table, ``panels`` the figures that it has places for.
    """
    scripts = [plotly_script(), _own("report.js")]
    hashes = " ".join(f"'sha256-{_digest(s)}'" for s in scripts)
    drawn = {p.id: {"figure": p.figure, "linked": p.linked, "height": p.height} for p in panels}
    return Template(_own("page.html")).substitute(
        policy=f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:",
        style=_own("report.css"),
        kind=html.escape(kind),
        name=html.escape(name),
        subtitle=html.escape(subtitle),
        first=first,
        main=Template(_own(template)).substitute(parts),
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


def drawn_panel(panel: Panel, note: str) -> str:
    """Return the place of a figure, with its heading and a note."""
    id_ = html.escape(panel.id)
    words = f"<p>{html.escape(note)}</p>" if note else ""
    return (
        f'<figure id="fig-{id_}"><figcaption><h3>{html.escape(panel.title)}</h3>{words}</figcaption>'
        f'<div class="plot" data-figure="{id_}" role="img" aria-label="{html.escape(panel.describe)}" '
        f'style="height:{panel.height}px"></div></figure>'
    )


def section(id_: str, title: str, body: str) -> str:
    """Return a part of the page under a heading."""
    return f'<section aria-labelledby="{id_}"><h2 id="{id_}">{title}</h2>{body}</section>'

"""The tables of the page, as HTML. Every text passes through ``html.escape``: a run's texts are not ours."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from melt_stream.analysis import summary
from melt_stream.analysis.phase_rows import Row
from melt_stream.analysis.report.gather import Material
from melt_stream.analysis.wording import NOTHING, count, measured, number, percent, seconds

ROWS = 500
"""Rows of a table on the page at most; the run has all of them."""
LONG = 40
"""Characters from which on a cell is broken into lines."""
QUALITIES = ("estimated", "missing", "partial", "interpolated", "measured")


class Html(str):
    """A cell that is HTML already: every text in it was escaped by who made it."""

    __slots__ = ()


def link(address: str, words: object) -> Html:
    """Return a link; both texts are escaped."""
    return Html(f'<a href="{html.escape(address)}">{_text(words)}</a>')


def table(
    caption: str, headers: Sequence[str], rows: Iterable[Sequence[object]], *, of: int | None = None
) -> str:
    """One table whose first column heads its rows, without columns that say nothing.

    ``of`` is how many rows there are, where not all are shown.
    """
    listed = [list(row) for row in rows]
    says = [
        i for i in range(len(headers)) if i == 0 or any(row[i] not in (None, NOTHING, "") for row in listed)
    ]
    head = "".join(f'<th scope="col">{_text(headers[i])}</th>' for i in says)
    body = "".join(_row([row[i] for i in says]) for row in listed)
    more = f" The first {ROWS:,} of {of:,} are shown." if of is not None and of > ROWS else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption + more)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def summary_table(of: summary.Summary) -> str:
    """One row a phase, with the notes below."""
    headers, rows = summary.table(of)
    notes = "".join(f"<li>{_text(note)}</li>" for note in of.notes)
    energy = table("Energy and speed of each phase, summed over requests", headers, rows) if rows else ""
    return f'{energy}<ul class="notes">{notes}</ul>'


def cards(of: summary.Summary) -> str:
    """The few numbers that most readers came for."""
    found = []
    for device in dict.fromkeys(row.device for row in of.rows):
        rows = {row.phase: row for row in of.rows if row.device == device}
        whose = f" of {device}" if len({row.device for row in of.rows}) > 1 else ""
        for phase, words in (
            ("decode", "J per output token in decode"),
            ("prefill", "J per input token in prefill"),
        ):
            if (row := rows.get(phase)) and row.joules_per_token is not None:
                value = measured(row.joules_per_token, row.joules_per_token_u)
                found.append((words + whose, value, f"at the boundary {row.where}"))
        if (row := rows.get("request")) and row.joules_per_token is not None:
            value = measured(row.joules_per_token, row.joules_per_token_u)
            found.append(
                ("J per output token, prompt included" + whose, value, f"at the boundary {row.where}")
            )
        if (row := rows.get("decode")) and row.tokens_per_s is not None:
            found.append(("tokens/s in decode" + whose, number(row.tokens_per_s), _times(row)))
        if (row := rows.get("prefill")) and row.ttft_s is not None:
            found.append(
                (
                    "time to first token" + whose,
                    seconds(row.ttft_s),
                    f"median of {count(row.requests, 'request')}",
                )
            )
        if (row := rows.get("run")) and row.joules is not None:
            words = f"{row.where}; {percent(row.coverage)} of {seconds(row.duration_s)} covered"
            found.append(("J in the whole run" + whose, measured(row.joules, row.joules_u), words))
    return "".join(
        f'<div class="card"><dt>{_text(name)}</dt><dd><strong>{_text(value)}</strong><span>{_text(words)}</span></dd></div>'
        for name, value, words in found
    )


def _times(row: Row) -> str:
    return f"inter-token {seconds(row.itl_p50_s)} (median), {seconds(row.itl_p95_s)} (95th percentile)"


def requests_table(of: pa.Table) -> str:
    """One row a request; its energy is of the device's account."""
    headers = (
        "request", "model", "input tokens", "cached", "output tokens", "energy / J", "boundary", "TTFT",
        "prefill tokens/s", "decode tokens/s", "ITL p50", "ITL p95", "coverage", "quality", "end",
    )  # fmt: skip
    rows = map(_request, of.slice(0, ROWS).to_pylist())
    return table("Requests, in the order in which they were sent", headers, rows, of=len(of))


def _request(r: Mapping[str, Any]) -> list[object]:
    boundary = f"{r['boundary']}, estimated" if r["boundary"] and r["estimated"] else r["boundary"]
    quality = [r["quality"], *(r["flags"] or ()), "partial" if r["partial"] else None]
    name = f"{r['request']}" + (f": {r['name']}" if r["name"] else "") + (" (warm-up)" if r["warmup"] else "")
    return [
        name, r["model"], _count(r["prompt_tokens"]), _count(r["cached_tokens"]), _count(r["output_tokens"]),
        measured(r["joules"], r["joules_u"]), boundary, seconds(r["ttft_s"]), number(r["prefill_tokens_per_s"]),
        number(r["decode_tokens_per_s"]), seconds(r["itl_p50_s"]), seconds(r["itl_p95_s"]), percent(r["coverage"]),
        ", ".join(dict.fromkeys(filter(None, quality))), r["error"] or r["finish"],
    ]  # fmt: skip


def gaps_table(of: pa.Table) -> str:
    """Holes in the streams, as the run recorded them."""
    headers = ("stream", "from", "length", "lost rows", "reason")
    rows = (
        [f"{g['instance']}.{g['stream']}", f"{g['start_ns'] / 1e9:.3f} s", seconds((g["stop_ns"] - g["start_ns"]) / 1e9),
         "unknown" if g["lost_rows"] is None else f"{g['lost_rows']:,}", g["reason"]]
        for g in of.slice(0, ROWS).to_pylist()
    )  # fmt: skip
    return table("Gaps: nothing was measured here, and nothing is assumed", headers, rows, of=len(of))


def oracles_table(of: pa.Table) -> str:
    """What an official result says, its own rule recomputed, and our attribution."""
    headers = ("quantity", "request", "unit", "reported", "recomputed by its rule", "ours", "ours / official")
    rows = []
    for o in of.slice(0, ROWS).to_pylist():
        official = o["recomputed"] if o["reported"] is None else o["reported"]
        share = o["ours"] / official if o["ours"] is not None and official else None
        rows.append([
            o["quantity"], _count(o["request"]), o["unit"], number(o["reported"], 8), number(o["recomputed"], 8),
            number(o["ours"], 6), number(share, 6),
        ])  # fmt: skip
    return table("Official results beside ours", headers, rows, of=len(of))


def rails_table(rails: Sequence[Mapping[str, Any]], material: Material) -> str:
    """Each rail with its boundary, its accuracy, and where that figure comes from."""
    account = {(p["device"], p["sensor"], p["rail"]) for p in material.tables["phases"].to_pylist()}
    headers = (
        "rail", "device", "boundary", "kind", "nested in", "role", "gain u", "offset u", "resolution", "period", "source",
    )  # fmt: skip
    rows = [
        [f"{r['sensor_of']}/{r['name']}", r["device_of"], r["boundary"], r["kind"] + (", estimated" if r["estimated"] else ""),
         r["parent"], "account" if (r["device_of"], r["sensor_of"], r["name"]) in account else "cross-check",
         NOTHING if r["gain"] is None else percent(r["gain"]), _with_unit(r["offset"], "W"),
         _with_unit(r["resolution"], "J" if r["kind"] in ("delta", "counter") else "W"),
         seconds(r["sample_period_ns"] / 1e9) if r["sample_period_ns"] else NOTHING, r["source"]]
        for r in rails
    ]  # fmt: skip
    return table("Rails: what was measured, where, and how well (standard uncertainties)", headers, rows)


def clocks_table(of: pa.Table) -> str:
    """How each clock was placed on the host's, with its bound."""
    headers = (
        "clock", "epoch", "segment", "kind", "readings", "bound", "latency up to", "drift", "drift bound", "rho",
        "contradiction",
    )  # fmt: skip
    rows = (
        [c["clock"], c["epoch"], c["segment"], c["kind"], _count(c["readings"]),
         NOTHING if c["bound_ns"] is None else f"± {seconds(c['bound_ns'] / 1e9)}", _time(c["latency_ns"]),
         _with_unit(c["drift_ppm"], "ppm"), _with_unit(c["drift_bound_ppm"], "ppm"), _with_unit(c["rho_ppm"], "ppm"),
         _time(c["residual_ns"])]
        for c in of.slice(0, ROWS).to_pylist()
    )  # fmt: skip
    return table("Clocks, as placed on the host's", headers, rows, of=len(of))


def found_table(of: Sequence[Mapping[str, Any]]) -> str:
    """What collectors found out while recording."""
    rows = [[f["name"], _said(f["value"]), f["instance_of"], f["device_of"]] for f in of[:ROWS]]
    return table("Found out while recording", ("fact", "value", "collector", "device"), rows, of=len(of))


def _said(value: str) -> str:
    """A fact's JSON as people read it: a text without its quotes."""
    try:
        told = json.loads(value)
    except ValueError:
        return value
    return told if isinstance(told, str) else value


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """A list of names and values, without those that are not known."""
    known = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    return (
        "<dl class='facts'>" + "".join(f"<dt>{_text(n)}</dt><dd>{_value(v)}</dd>" for n, v in known) + "</dl>"
    )


def folded(title: str, value: object) -> str:
    """A nested value, folded away until it is asked for."""
    words = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return f"<details><summary>{_text(title)}</summary><pre>{_text(words)}</pre></details>"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_text(k)} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    return _text(value)


def _row(cells: Sequence[object]) -> str:
    first, *rest = cells
    return (
        f'<tr><th scope="row">{_text(first)}</th>'
        + "".join(f"<td{_class(c)}>{_text(c)}</td>" for c in rest)
        + "</tr>"
    )


def _class(cell: object) -> str:
    """A quality in a cell is also said by its pattern."""
    if isinstance(cell, Html):
        return ""
    if len(str(cell)) > LONG:
        return ' class="long"'
    words = str(cell).split(", ")
    found = next((q for q in QUALITIES if q in words), None)
    return f' class="{found}"' if found else ""


def _text(value: object) -> str:
    if isinstance(value, Html):
        return value
    return html.escape(NOTHING if value is None else str(value))


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _time(ns: int | None) -> str:
    return NOTHING if ns is None else seconds(ns / 1e9)


def _with_unit(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{number(value)} {unit}"

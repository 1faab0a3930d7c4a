"""Draws docs/clocks.svg: ``python -m docs.clocks_picture``. What it shows is fitted, from readings of a made-up clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches.clock_worlds import table
from melt_stream.analysis.clocks import fit

Array = np.ndarray[Any, Any]
S, MS = 1e9, 1e6
HERE = Path(__file__).parent
WIDTH, HEIGHT = 860, 660
INK, SOFT, BAND, BAR, TRUTH, OTHER = "#1b1b1b", "#666666", "#cfe3f1", "#0072b2", "#d55e00", "#009e73"
RHO_PPM = 15.0


class Panel:
    """A plot of its own scale, with its origin at the left and its zero in its own height."""

    def __init__(self, top: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.box = (70.0, top, WIDTH - 95.0, height)
        self.x, self.y = x, y
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        left, top, width, height = self.box
        share = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return left + width * share[0], top + height * (1 - share[1])

    def path(self, x: Iterable[float], y: Iterable[float], style: str, close: str = "") -> None:
        points = " L".join(
            "{:.1f} {:.1f}".format(*self.at(a, b)) for a, b in zip(x, y, strict=True) if np.isfinite(b)
        )
        self.parts.append(f'<path d="M{points}{close}" {style}/>')

    def bars(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
        for a, b, c in zip(x, low, high, strict=True):
            self.path([a, a], [b, c], f'stroke="{colour}" stroke-width="2.2"')

    def say(self, x: float, y: float, words: str, colour: str = INK, anchor: str = "start") -> None:
        a, b = self.at(x, y)
        self.parts.append(
            f'<text x="{a:.1f}" y="{b:.1f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'
        )

    def svg(self, title: str, unit: str, ticks: Sequence[float]) -> str:
        left, top, width, height = self.box
        axis = [f'<text x="{left}" y="{top - 10}" font-weight="600" fill="{INK}">{title}</text>']
        for tick in ticks:
            _, y = self.at(0, tick)
            axis.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e4e4"/>')
            axis.append(
                f'<text x="{left - 8}" y="{y + 4:.1f}" fill="{SOFT}" text-anchor="end">{tick:g}</text>'
            )
        axis.append(
            f'<text transform="translate(18 {top + height / 2}) rotate(-90)" fill="{SOFT}" text-anchor="middle">{unit}</text>'
        )
        for second in range(0, 61, 10):
            x, _ = self.at(second, 0)
            axis.append(
                f'<text x="{x:.1f}" y="{top + height + 16}" fill="{SOFT}" text-anchor="middle">{second} s</text>'
            )
        name = f"box{top:g}"
        axis.append(
            f'<clipPath id="{name}"><rect x="{left}" y="{top}" width="{width}" height="{height}"/></clipPath>'
        )
        return "\n".join([*axis, f'<g clip-path="url(#{name})" fill="none">', *self.parts, "</g>"])


def two_way() -> tuple[Panel, dict[str, Array]]:
    """Twelve round trips of a clock that warms up; returns what was drawn, in ms from the map."""
    rng = np.random.default_rng(21)
    at = np.sort(np.concatenate([[0.2, 59.8], rng.uniform(1, 59, 10)]))
    grid = np.linspace(-4, 64, 400)
    slope = 80e-6

    def shown(t: Array) -> Array:  # rate: 80 ppm, and 15 ppm more or less as it warms up and cools down again
        return t * (1 + slope) + RHO_PPM * 1e-6 * 60 / (2 * np.pi) * np.sin(2 * np.pi * t / 60 - 0.6)

    out, back = (2e-5 + rng.exponential(3.5e-4, len(at)) for _ in range(2))
    tick = np.floor(shown(at) * S).astype(np.int64)
    maps = fit(
        table(
            "meter",
            tick,
            np.floor((at - out) * S),
            np.ceil((at + back) * S),
            1,
            rho_ppm=RHO_PPM,
            kind="round_trip",
        )
    )
    placed, asked = (maps.to_host("meter", 0, t) for t in (tick, np.floor(shown(grid) * S).astype(np.int64)))
    assert placed is not None
    assert asked is not None
    low, high = maps.bound("meter", 0, asked)
    drawn = {
        "x": grid, "low": low / MS, "high": high / MS, "truth": (grid * S - asked) / MS,
        "at": at, "bar_low": ((at - out) * S - placed) / MS, "bar_high": ((at + back) * S - placed) / MS,
    }  # fmt: skip
    panel = Panel(40, 260, (-3, 63), (-1.15, 1.25))
    panel.path([*grid, *grid[::-1]], [*drawn["high"], *drawn["low"][::-1]], f'fill="{BAND}"', " Z")
    for t, a, b in zip(at, drawn["bar_low"], drawn["bar_high"], strict=True):
        for sign in (-7, 7):
            for end, way in ((a, -1), (b, 1)):
                panel.path(
                    [t, t + sign],
                    [end, end + way * RHO_PPM * 1e-3 * 7],
                    f'stroke="{BAR}" stroke-width="0.7" stroke-dasharray="2 3"',
                )
    panel.path(grid, np.zeros(len(grid)), f'stroke="{INK}" stroke-width="1.4"')
    panel.path(grid, drawn["truth"], f'stroke="{TRUTH}" stroke-width="2.2"')
    panel.bars(at.tolist(), drawn["bar_low"].tolist(), drawn["bar_high"].tolist(), BAR)
    panel.say(30, 1.13, "a round trip: the clock was read somewhere in this bar", BAR, "middle")
    panel.say(30, 1.0, "its dashes: how far the truth may leave it at a rate within rho", BAR, "middle")
    panel.say(19, -0.26, "the truth", TRUTH, "middle")
    panel.say(
        30,
        -0.89,
        "zero: the map; shaded: its bound, where no bar and no dash forbids the truth",
        INK,
        "middle",
    )
    return panel, drawn


def one_way() -> tuple[Panel, dict[str, Array]]:
    """Two hundred arrivals of a steady clock; returns what was drawn, in ms after the nominal rate has them."""
    rng = np.random.default_rng(4)
    at = np.sort(rng.uniform(0, 60, 200))
    latency, drift = 0.9e-3, 60e-6
    arrived = at + latency + rng.exponential(1.2e-3, len(at))
    tick = np.floor(at / (1 + drift) * S).astype(np.int64)
    maps = fit(table("meter", tick, None, np.ceil(arrived * S), 1, rho_ppm=0.0))
    grid = np.linspace(-3, 63, 50)
    ticks = np.floor(grid / (1 + drift) * S).astype(np.int64)
    placed = maps.to_host("meter", 0, ticks)
    assert placed is not None
    drawn = {
        "x": grid, "map": (placed - ticks) / MS, "truth": (grid * S - ticks) / MS,
        "at": at, "arrived": (arrived * S - tick) / MS,
    }  # fmt: skip
    panel = Panel(375, 245, (-3, 63), (-1.2, 10))
    for x, y in zip(at, drawn["arrived"], strict=True):
        a, b = panel.at(x, y)
        panel.parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.4" fill="{BAR}"/>')
    panel.path(grid, drawn["map"], f'stroke="{INK}" stroke-width="1.4"')
    panel.path(grid, drawn["truth"], f'stroke="{TRUTH}" stroke-width="2.2"')
    panel.say(2, 8.6, "arrivals: each at least the latency after the truth", BAR)
    panel.say(2, 7.5, "map: the line under all of them; its slope is the drift", INK)
    panel.say(33, -0.2, "the truth: lower by the fastest arrival's latency, which", TRUTH)
    panel.say(33, -1.0, "no arrival can tell. It stays a term of its own.", TRUTH)
    return panel, drawn


def picture() -> str:
    """The whole drawing."""
    body = [
        two_way()[0].svg("Round trips: a bound", "host time less map / ms", (-0.8, -0.4, 0, 0.4, 0.8)),
        one_way()[0].svg(
            "Arrivals only: the rate is bounded, the offset up to a latency",
            "host time less ticks / ms",
            (0, 2, 4, 6, 8),
        ),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


if __name__ == "__main__":
    (HERE / "clocks.svg").write_text(picture())

"""The table in README.md, between two markers; what stands around them is written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benches.figures import Figure

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- begin: written by python -m benches --write -->", "<!-- end -->"
HEAD = ("| | median | smallest to largest | to reach | |", "|---|---:|---:|---:|---|")


def lines(figures: Sequence[Figure]) -> Iterator[str]:
    """One bench's table."""
    yield from HEAD
    for figure in figures:
        target = figure.target
        reach = "" if target is None else f"{target.sign} {figure.show(target.value)}"
        met = {None: "", True: "met", False: "**not met**"}[figure.met]
        low, high = figure.show(min(figure.values)), figure.show(max(figure.values))
        between = "" if len(figure.values) == 1 else f"{low} to {high}"
        yield f"| {figure.what} | {figure.show(figure.median)} | {between} | {reach} | {met} |"


def page(facts: Mapping[str, str], titles: Mapping[str, str], results: Mapping[str, Sequence[Figure]]) -> str:
    """What stands between the markers: the machine, then a table for each bench."""
    parts = ["\n".join(f"* {name}: {value}" for name, value in facts.items())]
    parts += [f"### {titles[name]}\n\n" + "\n".join(lines(figures)) for name, figures in results.items()]
    return "\n\n".join(parts)


def write(text: str, path: Path = README) -> None:
    """Put ``text`` between the markers. Raises ``ValueError`` where they are missing."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r} in {path}, found not both")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

"""The tables of MELT's labs: what the expect script, the controller, the phone's timers and MELT's own report wrote. Pure but for reading.

expect script   start_date,duration,state    CRLF; s since 1970, in whole ms; ``load_model`` or the prompt, which may hold anything
stages          stage,time_start,time_end,duration,rx,tx    s since 1970 of the controller; bytes
adb             timestamp,current,voltage,cpu_util    -1: not measured; uA and uV else, as Android has them; percent
timings         n_p_eval, t_p_eval_ms, n_eval, t_eval_ms and others, one line a prompt
results         iteration,conversation,prompt,...,energy_pt (mWh),discharge_pt (mAh),tps
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from melt_stream.collectors._files import numbered_lines, seconds_to_ns
from melt_stream.collectors._melt_app import Span
from melt_stream.collectors._melt_numbers import Stats
from melt_stream.errors import DataError

MOST = 200_000
"""Lines of one table."""
_CELLS = 100
LOAD = "load_model"


class Asked(NamedTuple):
    """A line of the expect script."""

    span: Span
    state: str

    @property
    def load(self) -> bool:
        """Not a prompt: the model was loaded."""
        return self.state == LOAD


class Stage(NamedTuple):
    """A stage of the experiment."""

    name: str
    span: Span
    rx: int | None
    tx: int | None


class Polled(NamedTuple):
    """A line of what the controller asked over adb."""

    at: int
    amps: float | None
    volts: float | None
    cpu: float | None


Reported = dict[tuple[int, int, int], dict[str, float]]
"""By iteration, conversation and prompt: column of MELT's report -> value."""


def asked(path: Path) -> list[Asked]:
    """Read the expect script's table. Raises ``DataError`` with the line."""
    found: list[Asked] = []
    for number, text in numbered_lines(path):
        if number == 1 or not text.strip():
            continue
        start, comma, rest = text.partition(",")
        duration, comma2, state = rest.partition(",")
        where = f"{path}, line {number}"
        if not comma or not comma2:
            raise DataError(f"{where}: expected start_date,duration,state, got {text[:80]!r}")
        state = state.strip()
        if len(state) > 1 and state[0] == state[-1] == '"':
            state = state[1:-1]
        found.append(Asked(_span(start, duration, where), state))
        if len(found) > MOST:
            raise DataError(f"{where}: expected at most {MOST} lines, got more")
    return found


def stages(path: Path) -> list[Stage]:
    """Read the controller's stages; none where the file is absent. Raises ``DataError`` with the line."""
    found = []
    for where, row in _rows(path, ("stage", "time_start", "time_end")):
        start, stop = (
            seconds_to_ns(row[name].strip(), f"{where}, {name}") for name in ("time_start", "time_end")
        )
        if stop < start:
            raise DataError(
                f"{where}: expected a stage that ends after its start, got {row['time_end'][:40]!r}"
            )
        rx, tx = (_number(row.get(name), f"{where}, {name}", -1e15, 1e15) for name in ("rx", "tx"))
        found.append(Stage(row["stage"][:200], Span(start, stop), _whole(rx), _whole(tx)))
    return found


def polled(path: Path) -> list[Polled]:
    """Read what was asked over adb; none where the file is absent. Raises ``DataError`` with the line.

    The first load is one since boot, as the script makes it, and therefore none; ``-1`` is not measured.
    """
    found: list[Polled] = []
    for where, row in _rows(path, ("timestamp", "cpu_util")):
        at = seconds_to_ns(row["timestamp"].strip(), f"{where}, timestamp")
        if found and at < found[-1].at:
            raise DataError(f"{where}: expected times that never decrease, got {row['timestamp'][:40]!r}")
        current, voltage = (_number(row.get(n), f"{where}, {n}", -1e9, 1e9) for n in ("current", "voltage"))
        cpu = _number(row["cpu_util"], f"{where}, cpu_util", -1e6, 1e6)
        measured = voltage not in (None, -1.0)
        found.append(
            Polled(
                at, current * 1e-6 if measured and current is not None else None,
                voltage * 1e-6 if measured and voltage is not None else None, cpu if found else None,
            )
        )  # fmt: skip
    return found


def timings(path: Path) -> list[Stats]:
    """Read llama.cpp's timers as an app wrote them, a line a prompt. Raises ``DataError`` with the line."""
    found = []
    for where, row in _rows(path, ("n_p_eval", "t_p_eval_ms", "n_eval", "t_eval_ms")):
        many, ms, out, out_ms = (
            _number(row[n], f"{where}, {n}", 0, 1e9)
            for n in ("n_p_eval", "t_p_eval_ms", "n_eval", "t_eval_ms")
        )
        found.append(
            Stats(
                _whole(many), _whole(out), 1e3 / ms * many if ms and many is not None else None,
                1e3 / out_ms * out if out_ms and out is not None else None, None if ms is None else round(ms * 1e6),
            )
        )  # fmt: skip
    return found


def reported(path: Path) -> Reported:
    """Read what MELT's report found; nothing where the file is absent. Raises ``DataError`` with the line."""
    found: Reported = {}
    for where, row in _rows(path, ("iteration", "conversation", "prompt")):
        key = [_number(row[n], f"{where}, {n}", 0, 1e9) for n in ("iteration", "conversation", "prompt")]
        values = {
            name: value
            for name in row
            if name not in ("iteration", "conversation", "prompt")
            and (value := _number(row[name], f"{where}, {name}", -1e12, 1e12)) is not None
        }
        if None not in key:
            found[int(key[0] or 0), int(key[1] or 0), int(key[2] or 0)] = values
    return found


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, cells by name) of a table with a header; none where the file is absent."""
    if not path.exists():
        return
    names: list[str] = []
    for number, text in numbered_lines(path):
        where = f"{path}, line {number}"
        if not text.strip():
            continue
        if number > MOST:
            raise DataError(f"{where}: expected at most {MOST} lines, got more")
        cells = _cells(text, where)
        if not names:
            names = [cell.strip() for cell in cells]
            if missing := [name for name in needed if name not in names]:
                raise DataError(
                    f"{where}: expected columns {', '.join(needed)}, got none of {', '.join(missing)}"
                )
            continue
        if len(cells) < len(names):
            raise DataError(f"{where}: expected {len(names)} cells, got {len(cells)}")
        yield where, dict(zip(names, cells, strict=False))


def _cells(text: str, where: str) -> list[str]:
    try:
        cells = next(csv.reader([text]), [])
    except csv.Error as exc:
        raise DataError(f"{where}: expected a line of CSV, got one with {exc}") from None
    if len(cells) > _CELLS:
        raise DataError(f"{where}: expected at most {_CELLS} cells, got {len(cells)}")
    return cells


def _span(start: str, duration: str, where: str) -> Span:
    begin = seconds_to_ns(start.strip(), f"{where}, start_date")
    return Span(begin, begin + seconds_to_ns(duration.strip(), f"{where}, duration"))


def _number(text: str | None, where: str, least: float, most: float) -> float | None:
    """A number in [least, most]; None where there is none, or ``nan``."""
    if text is None or text.strip().lower() in ("", "nan"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise DataError(f"{where}: expected a number from {least:g} to {most:g}, got {text[:40]!r}")
    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)

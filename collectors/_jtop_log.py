"""A table that somebody kept of what jtop shows, a row a second, into numbers; and the prompts kept beside it. Pure.

Columns are ``System-Time`` (HH:MM:SS), ``CPU0-CURR_FREQ`` (MHz), ``CPU0-CURR_LOAD`` (%), ``IGPU0-...``, ``EMC-...``, ``MEM-USED_SIZE`` (MiB),
``cpu-thermal-CURR_TEMP`` (degC; -256000: no sensor), ``VDD_GPU_SOC-IN_POWER`` (mW), ``...-IN_VOLTAGE`` (mV), ``...-IN_CURRENT`` (mA),
``fan1-CURR_PWM`` (of 255), ``fan1-RPM_MEASURED``. ``-`` stands for nothing; others are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from melt_stream.collectors._files import JSON_LIMIT, open_regular
from melt_stream.collectors._jetson_said import Said
from melt_stream.collectors._named_columns import named_rows
from melt_stream.errors import DataError

TIME = "System-Time"
_TIME = re.compile(r"(\d{1,2}):(\d\d):(\d\d)(?:\.\d{1,9})?")
_BLANK = re.compile(r"\s*")
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")
DAY_S = 86400
COLDEST = -55.0
LONGEST_S = 1e5
"""Of a prompt."""
Put = Callable[[Said, float], None]


def _rail(said: Said, name: str, sort: str, value: float) -> None:
    {"POWER": said.watts, "VOLTAGE": said.volts, "CURRENT": said.amps}[sort][name] = value * 1e-3


def _heat(said: Said, name: str, value: float) -> None:
    if value > COLDEST:
        said.celsius[name] = value


def _core(said: Said, number: str, sort: str, value: float) -> None:
    load, frequency = said.cores.get(int(number), (None, None))
    said.cores[int(number)] = (value, frequency) if sort == "LOAD" else (load, value * 1e6)


def _fan(said: Said, name: str, sort: str, value: float) -> None:
    pwm, rpm = said.fans.get(name, (None, None))
    said.fans[name] = (100 * value / 255, rpm) if sort == "CURR_PWM" else (pwm, value)


def _load(said: Said, name: str, value: float) -> None:
    if 0 <= value <= 100:  # an EMC load above it counts something else
        said.state[f"{name}_load"] = value


def _state(said: Said, name: str, scale: float, value: float) -> None:
    said.state[name] = value * scale


_COLUMNS: tuple[tuple[re.Pattern[str], Callable[[Said, Sequence[str], float], None]], ...] = (
    (re.compile(r"([\w ]{1,40})-IN_(POWER|VOLTAGE|CURRENT)"), lambda said, found, v: _rail(said, found[0], found[1], v)),
    (re.compile(r"([\w-]{1,40})-CURR_TEMP"), lambda said, found, v: _heat(said, found[0], v)),
    (re.compile(r"CPU(\d{1,4})-CURR_(LOAD|FREQ)"), lambda said, found, v: _core(said, found[0], found[1], v)),
    (re.compile(r"(fan\w{0,20})-(CURR_PWM|RPM_MEASURED)"), lambda said, found, v: _fan(said, found[0], found[1], v)),
    (re.compile(r"IGPU0-CURR_LOAD"), lambda said, _, v: _load(said, "gpu", v)),
    (re.compile(r"EMC-CURR_LOAD"), lambda said, _, v: _load(said, "emc", v)),
    (re.compile(r"IGPU0-CURR_FREQ"), lambda said, _, v: _state(said, "gpu_hz", 1e6, v)),
    (re.compile(r"EMC-CURR_FREQ"), lambda said, _, v: _state(said, "emc_hz", 1e6, v)),
    (re.compile(r"MEM-USED_SIZE"), lambda said, _, v: _state(said, "ram_used", 1 << 20, v)),
    (re.compile(r"SWAP-USED_SIZE"), lambda said, _, v: _state(said, "swap_used", 1 << 20, v)),
)  # fmt: skip
MODE = "NVPMODEL-POWER_MODE"


def rows(path: Path) -> Iterator[tuple[int, Said]]:
    """Yield (line number, what it says), with ``date_s`` counted from midnight of the first day.

    A last line with fewer columns is left out: it was cut. Raises ``DataError`` with the line for any other, for a time that is none, and
    one that goes back.
    """
    lines = named_rows(path)
    names = list(next(lines, (1, {}))[1])
    if TIME not in names or not any(name.endswith("-IN_POWER") for name in names):
        raise DataError(
            f"{path}, line 1: expected a header with {TIME} and columns ...-IN_POWER, got {','.join(names)[:80]!r}"
        )
    meanings = {name: put for name in names if (put := _meaning(name)) is not None}
    last = None
    for number, cells in lines:
        said = Said(date_s=_seconds(path, number, cells[TIME], last))
        last = said.date_s
        for name, put in meanings.items():
            if _NUMBER.fullmatch(cells[name]):
                put(said, float(cells[name]))
        said.mode = cells[MODE][:64] if MODE in cells else None
        said.settle()
        yield number, said


def _meaning(name: str) -> Put | None:
    for pattern, put in _COLUMNS:
        if match := pattern.fullmatch(name):
            groups = match.groups()
            return lambda said, value, put=put, groups=groups: put(said, groups, value)  # type: ignore[misc]
    return None


def _seconds(path: Path, line: int, text: str, last: int | None) -> int:
    if (match := _TIME.fullmatch(text)) is None:
        raise DataError(f"{path}, line {line}: expected a time HH:MM:SS, got {text[:40]!r}")
    hours, minutes, seconds = (int(part) for part in match.groups())
    now = hours * 3600 + minutes * 60 + seconds
    if last is None:
        return now
    now += last - last % DAY_S
    if now < last - DAY_S // 2:
        now += DAY_S  # past midnight
    if now < last:
        raise DataError(
            f"{path}, line {line}: expected times that never decrease, got {text}; was the clock set? Split the log there"
        )
    return now


class Prompt(NamedTuple):
    """A prompt and how long its answer took."""

    text: str
    tokens: int | None
    total_s: float
    generation_s: float | None
    decode_s: float | None


def prompts(path: Path) -> list[Prompt]:
    """Read objects of JSON one after another: ``input_prompt.user_query``, ``latency`` (s), ``token_count``. Raises ``DataError`` with the character."""
    with open_regular(path, JSON_LIMIT) as file:
        text = file.read(JSON_LIMIT).decode("utf-8-sig", "replace")
    decoder, at, found = json.JSONDecoder(), 0, []
    while (at := _blank_until(text, at)) < len(text):
        where = f"{path}, character {at}"
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as exc:
            raise DataError(f"{where}: expected an object of JSON, got {text[at : at + 60]!r}") from exc
        found.append(_prompt(record, where))
    return found


def _blank_until(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _prompt(record: object, where: str) -> Prompt:
    fields = record if isinstance(record, dict) else {}
    latency, asked = fields.get("latency"), fields.get("input_prompt")
    told = (
        {name: _duration(latency.get(name)) for name in ("total", "generation", "decode")}
        if isinstance(latency, dict)
        else {}
    )
    if (total := told.get("total")) is None:
        raise DataError(f"{where}: expected latency.total in seconds, got {str(latency)[:60]!r}")
    count = fields.get("token_count")
    tokens = (
        count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 31 else None
    )
    text = str(asked.get("user_query", ""))[:512] if isinstance(asked, dict) else ""
    return Prompt(text, tokens, total, told["generation"], told["decode"])


def _duration(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_S:
        return None
    return float(value)

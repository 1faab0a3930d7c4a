"""A line of tegrastats, of three generations of its grammar, into numbers. Pure.

L4T up to 32: no date, ``POM_5V_IN 1022/1022``; 34 to 36: ``MM-DD-YYYY HH:MM:SS`` in local time, ``VDD_IN 4120mW/4120mW``, ``cpu@43.9C``;
JetPack 7: three values a rail, ``cpu@52.9C/52.9C``. Of a rail's values the first is instantaneous, the second a mean since the start. A
temperature of -256 is that of a sensor that is not there. Any line may begin with seconds, or ns, since 1970 from whoever logged it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from melt_stream.collectors._jetson_said import Said

_STAMP = re.compile(r"(\d{9,11}(?:\.\d{1,9})?|\d{19})\s+")
_DATE = re.compile(r"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\s+")
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]{1,40}) (\d{1,7})(mW)?/(\d{1,7})(?:mW)?(?:/\d{1,7}(?:mW)?)?(?!\S)")
_HEAT = re.compile(r"(?<!\S)([A-Za-z][\w.-]{0,40})@(-?\d{1,4}(?:\.\d{1,4})?)C(?:/-?[\d.]{1,9}C)?(?!\S)")
_MEMORY = re.compile(r"(?<!\S)(RAM|SWAP) (\d{1,7})/(\d{1,7})MB")
_LOAD = re.compile(r"(?<!\S)(GR3D_FREQ|EMC_FREQ|VIC_FREQ) (?:(\d{1,3})%)?(?:@\[?)?(\d{1,6})?")
_CPUS = re.compile(r"(?<!\S)CPU \[([^\]]{0,2000})\]")
_CPU = re.compile(r"(\d{1,3})%@(\d{1,6})")
SOURCE = "tegrastats, from the board's INA3221s; their steps (0.4 W on AGX Orin) and accuracy are not in it"
ABSENT = -256.0
_NAMES = {"GR3D_FREQ": "gpu", "EMC_FREQ": "emc", "VIC_FREQ": "vic"}


@dataclass
class Line(Said):
    """What one line says."""

    stamp_ns: int | None = None
    """Since 1970, exact."""


def parse(text: str) -> Line | None:
    """Read a line; None where it is not one of tegrastats."""
    line = Line()
    if match := _STAMP.match(text):
        line.stamp_ns = int(match[1]) if "." not in match[1] and len(match[1]) == 19 else _ns(match[1])
        text = text[match.end() :]
    if match := _DATE.match(text):
        line.date_s = _date(*map(int, match.groups()))
        text = text[match.end() :]
        if line.date_s is None:
            return None
    if not text.startswith(("RAM ", "SWAP ", "CPU ")) or "/" not in text:
        return None
    line.watts = {match[1]: int(match[2]) / 1000 for match in _RAIL.finditer(text)}
    line.celsius = {m[1]: float(m[2]) for m in _HEAT.finditer(text) if float(m[2]) > ABSENT}
    for name, used, _ in _MEMORY.findall(text):
        line.state[f"{name.lower()}_used"] = float(used) * (1 << 20)
    for name, percent, megahertz in _LOAD.findall(text):
        if percent:
            line.state[f"{_NAMES[name]}_load"] = float(percent)
        if megahertz:
            line.state[f"{_NAMES[name]}_hz"] = float(megahertz) * 1e6
    if cpus := _CPUS.search(text):
        line.cores = dict(_cores(cpus[1].split(",")))
    line.settle()
    return line


def _cores(cpus: list[str]) -> Iterator[tuple[int, tuple[float, float]]]:
    for number, cpu in enumerate(cpus):
        if match := _CPU.fullmatch(cpu.strip()):
            yield number, (float(match[1]), float(match[2]) * 1e6)


def _ns(seconds: str) -> int:
    whole, _, part = seconds.partition(".")
    return int(whole) * 10**9 + int(part.ljust(9, "0") or 0)


def _date(month: int, day: int, year: int, hour: int, minute: int, second: int) -> int | None:
    try:
        return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
    except ValueError:
        return None

"""What jetson-stats says of a board: the program that asks it there, and its lines into numbers. The latter is pure.

jetson-stats serves pickled Python objects and is under the AGPL, so neither is it imported here nor are its bytes read: a few lines of ours
run in the board's own interpreter, where the user installed it, and print JSON. Units are those of its documentation (version 4 and
later): rails in mV, mA and mW, clocks in kHz, memory in kB, temperatures in degC, loads and fans in %.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from melt_stream.collectors._jetson_said import Said

PROGRAM = """
import json, sys
from jtop import jtop
def plain(x):
    return dict(x.items()) if hasattr(x, "items") else str(x)
def get(j, name):
    try:
        return getattr(j, name)
    except Exception:
        return None
def say(j, names):
    print(json.dumps({name: get(j, name) for name in names}, default=plain), flush=True)
with jtop(interval=float(sys.argv[1])) as j:
    say(j, ["board"])
    while j.ok():
        say(j, ["power", "temperature", "cpu", "gpu", "memory", "fan", "nvpmodel", "jetson_clocks"])
"""
"""Its one argument is the interval in seconds. It is ended by a signal, as ``Place.lines`` does; an attribute that a version lacks is null."""
SOURCE = "jetson-stats, from the board's INA3221s: the newest of its readings, whose moment it does not tell"
COLDEST = -55.0
"""Below it there is no sensor: -256."""


def record(text: str) -> Mapping[str, Any] | None:
    """Return the object that a line is; None where it is none of the program's."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = {"board", "power", "temperature", "cpu", "gpu", "memory", "fan"}
    return found if isinstance(found, dict) and known & found.keys() else None


def said(found: Mapping[str, Any]) -> Said:
    """Return what a record says; what is not as documented is left out."""
    told = Said()
    for name, rail in _objects(_of(found, "power", "rail")):
        _rail(told, name, rail)
    total = _of(found, "power", "tot")
    if isinstance(whole := total.get("name"), str) and whole not in (
        "",
        "ALL",
    ):  # a rail of its own, and no sum
        _rail(told, whole, total)
    for name, zone in _objects(found.get("temperature")):
        celsius = number(zone.get("temp"))
        if celsius is not None and celsius > COLDEST and zone.get("online") is not False:
            told.celsius[name] = celsius
    told.cores = dict(_cores(_of(found, "cpu").get("cpu")))
    for _, gpu in _objects(found.get("gpu")):
        _put(told, "gpu_load", _of(gpu, "status").get("load"), 1.0)
        _put(told, "gpu_hz", _of(gpu, "freq").get("cur"), 1e3)
    _put(told, "ram_used", _of(found, "memory", "RAM").get("used"), 1024.0)
    _put(told, "swap_used", _of(found, "memory", "SWAP").get("used"), 1024.0)
    _put(told, "emc_load", _of(found, "memory", "EMC").get("val"), 1.0)
    _put(told, "emc_hz", _of(found, "memory", "EMC").get("cur"), 1e3)
    for name, fan in _objects(found.get("fan")):
        told.fans[name] = _first(fan.get("speed")), _first(fan.get("rpm"))
    if isinstance(mode := found.get("nvpmodel"), str):
        told.mode = mode
    told.settle()
    return told


def number(value: Any) -> float | None:
    """Return a finite number that is not negative, or a temperature; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if isfinite(found) and abs(found) < 1e12 else None


def _rail(told: Said, name: str, rail: Mapping[str, Any]) -> None:
    if rail.get("online") is False:
        return
    for into, key in ((told.watts, "power"), (told.volts, "volt"), (told.amps, "curr")):
        if (value := number(rail.get(key))) is not None:
            into[name] = value * 1e-3


def _cores(cpus: Any) -> Iterator[tuple[int, tuple[float | None, float | None]]]:
    for core, cpu in enumerate(cpus if isinstance(cpus, list) else []):
        if isinstance(cpu, dict) and cpu.get("online") is not False:
            idle, kilohertz = number(cpu.get("idle")), number(_of(cpu, "freq").get("cur"))
            load = None if idle is None else 100 - idle
            yield core, (load, None if kilohertz is None else kilohertz * 1e3)


def _put(told: Said, name: str, value: Any, scale: float) -> None:
    if (found := number(value)) is not None:
        told.state[name] = found * scale


def _first(values: Any) -> float | None:
    return number(values[0] if isinstance(values, list) and values else values)


def _of(found: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The object below these keys; empty where there is none."""
    for key in keys:
        inner = found.get(key)
        found = inner if isinstance(inner, dict) else {}
    return found


def _objects(found: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, inner in found.items() if isinstance(found, dict) else ():
        if isinstance(inner, dict):
            yield name, inner

"""Importer ``tvm-ops``: the reports of TVM's VM profiler, as MLC-LLM prints them into its log.

    [18:37:55] .../vm.cc:973: Report from function decode:
    {"calls": [{"Name": {"string": ...}, "Duration (us)": {"microseconds": ...}, ...}], ...}

    [18:37:55] .../vm.cc:975: Name      Duration (us)  Percent  Device  Count      Argument Shapes
    rms_norm1                               79,352.38    13.23  metal0     65      float16[1, 1, 4096], ...
    ----------
    Sum                                    546,074.25    91.04          1,818

The JSON has every call in order, the table their sums by name, device and shapes: it is read where there is no JSON, and its sum is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from melt_stream.collectors._files import numbered_lines, the_file
from melt_stream.collectors._ops import Op, Profile
from melt_stream.errors import DataError
from melt_stream.outlet import Outlet

CALLS_LIMIT = 1 << 20
_REPORT = re.compile(r"Report from function ([\w.]{1,80}):")
_JSON = '{"calls"'
_HEADER = re.compile(r"(?:.*: )?Name\s+Duration \(us\)\s+Percent\s+Device\s+Count\s+Argument Shapes\s*")
_US = r"([\d,]{1,16}\.\d{1,6})"
_ROW = re.compile(rf"(\S{{1,400}})\s+{_US}\s+\d{{1,3}}\.\d+\s+(\w{{1,40}})\s+([\d,]{{1,12}})\s+(.*)")
_SUM = re.compile(rf"Sum\s+{_US}\s.*")
_KERNELS = (
    "matmul", "softmax", "rms_norm", "layer_norm", "take", "silu", "gelu", "rotary", "attention", "split", "concatenate", "transpose",
    "reshape", "divide", "multiply", "add", "argsort", "full", "cast",
)  # fmt: skip
"""What a fused kernel does that costs most; the first that its name has."""
_MODULES = {
    "rms_norm": "norm",
    "layer_norm": "norm",
    "take": "embedding",
    "silu": "mlp",
    "gelu": "mlp",
    "attention": "attention",
}


class _Text(BaseModel):
    string: str = ""


class _Microseconds(BaseModel):
    microseconds: Annotated[float, Field(ge=0, le=1e12)]


class _Number(BaseModel):
    count: Annotated[int, Field(ge=0, le=1 << 40)] = 1


class Call(BaseModel):
    """A call, as the profiler has it."""

    name: _Text = Field(alias="Name")
    took: _Microseconds = Field(alias="Duration (us)")
    device: _Text = Field(_Text(), alias="Device")
    number: _Number = Field(_Number(), alias="Count")
    shapes: _Text = Field(_Text(), alias="Argument Shapes")


class Report(BaseModel):
    """What of a report is read."""

    calls: Annotated[list[Call], Field(max_length=CALLS_LIMIT)]


@dataclass
class _Reading:
    """A report that is being read."""

    line: int
    function: str | None = None
    ops: list[Op] = field(default_factory=list)
    from_json: bool = False
    in_table: bool = False
    total: float | None = None
    """The table's sum, us."""

    def add(self, name: str, us: float, device: str, count: int, shapes: str) -> None:
        op = op_of(name)
        self.ops.append(
            Op(
                len(self.ops), op, shapes, round(us * 1000), name, module_of(name, op, shapes, self.function), None, device or None,
                count,
            )
        )  # fmt: skip


@dataclass
class TvmOps:
    """Read one log to its end; ``path`` is the log. Raises ``DataError`` where it has no report, or one that is damaged."""

    path: Path

    @staticmethod
    def example() -> dict[str, Any]:
        text = (
            "[18:37:55] vm.cc:973: Report from function decode:\n"
            "[18:37:55] vm.cc:975: Name  Duration (us)  Percent  Device  Count  Argument Shapes\n"
            "rms_norm1   79,352.38    50.00  metal0     65  float16[1, 1, 4096], float16[4096]\n"
            "split       20,266.96    50.00  metal0     32  float16[1, 1, 12288]\n----------\nSum         99,619.34   100.00          97\n"
        )
        return {"kind": "files", "tree": {"mlc.log": text}}

    async def collect(self, out: Outlet) -> None:
        path = the_file(self.path)
        profile, reading = Profile(out), None
        for number, text in numbered_lines(path):
            where = f"{path}, line {number}"
            if (found := _REPORT.search(text)) is not None or (text.startswith(_JSON) and _is_over(reading)):
                _finish(profile, reading)
                await out.room()
                reading = _Reading(number, found[1] if found else None)
            if reading is None:
                continue
            if text.startswith(_JSON):
                _take_json(reading, text, where)
            else:
                _take_table(reading, text, where)
        _finish(profile, reading)
        if not profile.graphs:
            raise DataError(
                f"{path}: expected reports of TVM's profiler (Report from function ...), got none"
            )
        profile.end()


def op_of(name: str) -> str:
    """Return what a kernel does: ``fused_fused_decode1_fused_NT_matmul5_cast2`` is a ``matmul``."""
    if name.startswith("vm.builtin."):
        return name
    return next((kernel for kernel in _KERNELS if kernel in name), re.sub(r"\d+", "", name))


def module_of(name: str, op: str, shapes: str, function: str | None) -> str | None:
    """Return where in the model it is, as far as its name and shapes tell: of linear layers they do not."""
    if function is not None and "softmax" in function:
        return "sampling"
    if name.startswith("vm.builtin."):
        return "attention" if "attention" in name else "runtime"
    extents = re.match(r"\w+\[([\d, ]*)\]", shapes)
    batched = extents is not None and extents[1].count(",") == 3  # by heads
    if op in ("matmul", "softmax"):
        return "attention" if batched else None
    return _MODULES.get(op)


def _phase(function: str | None) -> str | None:
    if function is None:
        return None
    return next(
        (word for word in ("prefill", "decode") if word in function),
        module_of("", "", "", function) or function,
    )


def _is_over(reading: _Reading | None) -> bool:
    return reading is None or reading.from_json


def _take_json(reading: _Reading, text: str, where: str) -> None:
    try:
        told = Report.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise DataError(f"{where}: expected a report as JSON, got {first['loc']}: {first['msg']}") from exc
    reading.from_json = True
    for call in told.calls:
        reading.add(
            call.name.string,
            call.took.microseconds,
            call.device.string,
            call.number.count,
            call.shapes.string,
        )


def _take_table(reading: _Reading, text: str, where: str) -> None:
    if _HEADER.fullmatch(text):
        reading.in_table = True
    elif reading.in_table and (total := _SUM.fullmatch(text)) is not None:
        reading.total, reading.in_table = _us(total[1]), False
    elif reading.in_table and not text.startswith("---") and not reading.from_json:
        if (row := _ROW.fullmatch(text)) is None:
            raise DataError(
                f"{where}: expected name, duration, percent, device, count and shapes, got {text[:120]!r}"
            )
        reading.add(row[1], _us(row[2]), row[3], int(row[4].replace(",", "") or 0), row[5].strip())


def _us(text: str) -> float:
    return float(text.replace(",", ""))


def _finish(profile: Profile, reading: _Reading | None) -> None:
    if reading is None:
        return
    number = profile.add(reading.ops, _phase(reading.function), reading.function)
    if reading.total is None:
        profile.lost(
            f"line {reading.line}: expected a report with its sum, got {len(reading.ops)} calls and none",
            None,
        )
        return
    profile.check(
        f"graph {number} sum", "us", reading.total, sum(op.duration_ns for op in reading.ops) / 1000
    )

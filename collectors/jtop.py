"""A Jetson as jetson-stats sees it: rails, temperatures, loads, clocks, memory, fans and the power mode."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._jetson_said import Said
from melt_stream.collectors._jetson_tool import JetsonTool
from melt_stream.collectors._jtop import PROGRAM, SOURCE, record, said
from melt_stream.collectors._jtop_example import SHIM
from melt_stream.collectors._telling import needed
from melt_stream.devices import Place
from melt_stream.errors import ConfigError
from melt_stream.outlet import Outlet

CURE = "sudo pip3 install -U jetson-stats on the board, then log in again; its user must be in the group jtop"
CHECK_S = 10.0


@dataclass
class Jtop(JetsonTool):
    """Has the board's own python3 ask jetson-stats, which is installed there, and print what it says.

    The first client of the service sets the rate for all: while a ``jtop`` is open elsewhere, its interval counts.
    """

    _: KW_ONLY
    python: list[str] = field(default_factory=lambda: ["python3"])
    """The board's interpreter that has it, and arguments that come first."""
    facts: bool = True
    """Record the board's description (model, L4T, libraries; serial numbers are left out)."""

    what = "a record of jtop"
    source = SOURCE

    def __post_init__(self) -> None:
        if not self.python:
            raise ConfigError("python: expected an interpreter, got none")
        super().__post_init__()

    def command(self) -> list[str]:
        return [*self.python, "-c", PROGRAM, f"{self.interval_ms / 1000:g}"]

    async def find(self, place: Place) -> None:
        await needed(place, [*self.python, "-c", "import jtop"], "jetson-stats", CURE)

    def said(self, text: str, out: Outlet) -> Said | None:
        if (found := record(text)) is None:
            return None
        if self.facts and isinstance(board := found.get("board"), dict):
            out.fact("board", _without_serials(board))
        return said(found)

    def check(self) -> Health:
        """Tell whether this machine has it."""
        try:
            asked = subprocess.run(
                [*self.python, "-c", "import jtop"], capture_output=True, timeout=CHECK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            return Health(False, f"cannot run {self.python[0]}: {exc}", CURE)
        if asked.returncode:
            return Health(False, f"no jetson-stats in {self.python[0]}", CURE)
        return Health(True, f"jetson-stats in {self.python[0]}")

    @staticmethod
    def example() -> dict[str, Any]:
        return {"kind": "plain", "config": {"python": [sys.executable, "-c", SHIM], "interval_ms": 50.0}}


def _without_serials(board: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_serials(value) if isinstance(value, dict) else value
        for name, value in board.items()
        if "serial" not in name.lower()
    }

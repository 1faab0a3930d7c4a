"""NVIDIA's tegrastats on a Jetson, live: rails, temperatures, loads, clocks and memory, of three generations of its lines."""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from melt_stream.collector import Health
from melt_stream.collectors._jetson_said import Said
from melt_stream.collectors._jetson_tool import JetsonTool
from melt_stream.collectors._tegrastats import SOURCE, parse
from melt_stream.collectors._telling import here, on_path
from melt_stream.devices import Place
from melt_stream.errors import ConfigError
from melt_stream.outlet import Outlet

CURE = 'JetPack\'s package nvidia-l4t-tools (sudo apt-get install nvidia-l4t-tools), on a Jetson; or tool = ["/its/path"]'


@dataclass
class Tegrastats(JetsonTool):
    """Runs ``tegrastats --interval MS`` and stamps each line by the board's clock; its own date, of whole seconds, is kept beside."""

    _: KW_ONLY
    tool: list[str] = field(default_factory=lambda: ["tegrastats"])
    """The program, and what comes before ``--interval``."""
    sudo: bool = False
    """Run it as root, which sees more on some boards (EMC, the GPU's clock, rails of L4T 28); sudo must not ask for a password."""

    what = "a line of tegrastats (RAM ... CPU [...] ...)"
    source = SOURCE

    def __post_init__(self) -> None:
        if not self.tool:
            raise ConfigError("tool: expected a program and its arguments, got none")
        super().__post_init__()

    def command(self) -> list[str]:
        return [*(["sudo", "-n"] if self.sudo else []), *self.tool, "--interval", f"{self.interval_ms:.0f}"]

    async def find(self, place: Place) -> None:
        if self.sudo:
            await on_path(place, "sudo", "sudo = false, and log in as a user who may run tegrastats")
        await on_path(place, self.tool[0], CURE)

    def said(self, text: str, out: Outlet) -> Said | None:  # noqa: ARG002 - jtop has facts to tell
        return parse(text)

    def check(self) -> Health:
        """Tell whether this machine has it."""
        return here(self.tool[0], CURE)

    @staticmethod
    def example() -> dict[str, Any]:
        line = "RAM 2448/7772MB (lfb 4x4MB) CPU [3%@1510,off] GR3D_FREQ 12%@[305] cpu@43.9C CV0@-256C VDD_IN 4120mW/4120mW"
        prints = f"import time\nwhile True: print('05-27-2024 16:33:45 {line}', flush=True); time.sleep(0.02)"
        return {"kind": "plain", "config": {"tool": [sys.executable, "-c", prints], "interval_ms": 20.0}}

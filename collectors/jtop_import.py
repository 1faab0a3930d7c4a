"""Importer ``jtop``: a table of what jtop showed of a Jetson, and the prompts that it answered meanwhile."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from melt_stream.collectors._jetson_recorded import write
from melt_stream.collectors._jtop import SOURCE
from melt_stream.collectors._jtop_log import Prompt, prompts, rows
from melt_stream.collectors._trace_csv import the_csv
from melt_stream.collectors._whole_seconds import within_seconds
from melt_stream.errors import DataError
from melt_stream.events import EVENTS
from melt_stream.outlet import Outlet
from melt_stream.stream import Stream
from melt_stream.units import S

INTERVAL_NS = 1e9
PROMPTS = Stream("prompts", request=int, name=str, tokens=int, total=S, generation=S, decode=S)
BESIDE = "prompt_results.txt"


@dataclass
class JtopImport:
    """Read a table to its end. Raises ``DataError`` where it is none.

    The prompts' file has no times: their windows lie end to end from ``prompts_at_s`` on, and those that end after the table are left out.
    """

    path: Path
    """The table (CSV), or the folder that has it."""
    _: KW_ONLY
    prompts: str = ""
    """The file of prompts, relative to the table's folder; by default ``prompt_results.txt``, where it is there; ``-``: none."""
    prompts_at_s: Annotated[float, Ge(0)] = 0.0
    """When the first prompt was sent, seconds after the table's first row."""
    total: tuple[str, ...] | None = None
    """Rails whose sum is the board's power, as rail ``total``; None: what is known of the board."""

    @staticmethod
    def example() -> dict[str, Any]:
        head = "System-Time,CPU0-STATE,CPU0-CURR_FREQ,CPU0-CURR_LOAD,cpu-thermal-CURR_TEMP,VDD_IN-IN_POWER"
        table = "".join(f"01:22:{k:02},True,1971.2,{k},65.6,{4000 + k}\n" for k in range(30))
        prompt = {"input_prompt": {"user_query": "Why?"}, "latency": {"total": 2.5}, "token_count": 7}
        return {"kind": "files", "tree": {"jtop.csv": f"{head}\n{table}", BESIDE: json.dumps(prompt)}}

    async def collect(self, out: Outlet) -> None:
        table = the_csv(Path(self.path))
        found = list(rows(table))
        if not found:
            raise DataError(f"{table}: expected rows below the header, got none")
        said = [one for _, one in found]
        dates = np.array([one.date_s for one in said], np.int64)
        tick, t_u, period = within_seconds(dates - dates[0], INTERVAL_NS)
        for one in said:
            one.date_s = None  # of a day that nobody knows
        await write(
            out, said, tick.tolist(), t_u, period, total=self.total, source=SOURCE, where=str(self.path)
        )
        if (file := self._prompts(table)) is not None:
            self._place(out, prompts(file), int(tick[-1] + period))
        out.ready()

    def _place(self, out: Outlet, found: list[Prompt], stop: int) -> None:
        """Lay the prompts' windows end to end."""
        at, outside = round(self.prompts_at_s * 1e9), 0
        for prompt in found:
            start, at = at, at + round(prompt.total_s * 1e9)
            if at > stop:
                outside += 1
                continue
            request = out.next_request()
            out.row(EVENTS, tick=start, kind="window_start", request=request, name=prompt.text)
            out.row(EVENTS, tick=at, kind="window_end", request=request, name=prompt.text)
            out.row(
                PROMPTS, tick=start, request=request, name=prompt.text, tokens=prompt.tokens, total=prompt.total_s,
                generation=prompt.generation_s, decode=prompt.decode_s,
            )  # fmt: skip
        out.fact(
            "prompts",
            {
                "placed": f"end to end from {self.prompts_at_s:g} s: their file has no times",
                "left_out": outside,
            },
        )

    def _prompts(self, table: Path) -> Path | None:
        if self.prompts == "-":
            return None
        file = table.parent / (self.prompts or BESIDE)
        return file if self.prompts or file.exists() else None

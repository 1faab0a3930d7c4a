"""The runs of an MLPerf result with power: which folders they are, what each logged, in which zones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melt_stream.collectors._files import folders_below, numbered_lines, optional_lines
from melt_stream.collectors._loadgen import Loadgen, read_loadgen
from melt_stream.collectors._power_session import Side, fitting_zone, session_zone
from melt_stream.collectors._ptdaemon import Samples, read_samples
from melt_stream.errors import ConfigError

_PHASES = {"ranging": "ranging", "run_1": "testing"}


@dataclass
class PowerRun:
    """A run as its two hosts logged it, each in its own zone (ns ahead of UTC)."""

    name: str
    samples: Samples
    loadgen: Loadgen
    client_zone: int = 0
    server_zone: int = 0

    @property
    def window(self) -> tuple[int, int] | None:
        """power_begin and power_end, local ns, where the log has both."""
        begin, end = self.loadgen.begin, self.loadgen.end
        return None if begin is None or end is None else (begin, end)


def run_folders(path: Path) -> list[Path]:
    """Return the folders of one result that hold a ``spl.txt``: ``ranging``, ``run_1``, ..."""
    found = [folder for folder in folders_below(path, 5) if (folder / "spl.txt").is_file()]
    if path in found:
        return [path]
    results = sorted({folder.parent for folder in found})
    if len(results) == 1:
        return found
    names = ", ".join(str(result.relative_to(path)) for result in results[:5])
    raise ConfigError(
        f"{path}: expected one MLPerf result with power (run_1/spl.txt, power/), "
        + (
            f"got {len(results)}: {names}; name one of them"
            if found
            else "got no spl.txt; name the result's folder"
        )
    )


def read_run(folder: Path) -> PowerRun:
    """Read a run's samples, and its loadgen log wherever below the folder it is."""
    details = (below / "mlperf_log_detail.txt" for below in folders_below(folder, 4))
    detail = next((file for file in details if file.is_file()), folder / "mlperf_log_detail.txt")
    loadgen = read_loadgen(optional_lines(detail), detail)
    spl = folder / "spl.txt"
    return PowerRun(folder.name, read_samples(numbered_lines(spl), spl, loadgen.begin), loadgen)


def find_zones(runs: list[PowerRun], client: Side, server: Side, client_zone: int | None) -> None:
    """Set each run's zones; ``client_zone`` is that of ``client.log``."""
    meter = session_zone(server)
    for run in runs:
        phase, local = _PHASES.get(run.name, ""), run.samples.local
        asked, served = client.phases.get(phase, []), server.phases.get(phase, [])
        if len(local):
            first, last, where = int(local[0]), int(local[-1]), f"{run.name}/spl.txt"
            run.server_zone = fitting_zone(first, last, served, 3, (meter, client_zone, 0), where)
        if run.loadgen.begin is not None:
            first, last = run.loadgen.begin, run.loadgen.end or run.loadgen.begin
            where = f"{run.name}/mlperf_log_detail.txt"
            run.client_zone = fitting_zone(first, last, asked, 2, (client_zone, meter, 0), where)


def origin(client: Side, runs: list[PowerRun]) -> int:
    """The origin of both axes, ns since 1970: the client's first exchange, or the first thing logged."""
    firsts = [exchange.sent for exchange in client.exchanges[:1]]
    firsts = firsts or [run.loadgen.begin - run.client_zone for run in runs if run.loadgen.begin is not None]
    firsts = firsts or [int(run.samples.local[0]) - run.server_zone for run in runs if len(run.samples.local)]
    return min(firsts, default=0)


def official_mean(samples: Samples, begin: int, end: int, ahead: int = 0) -> float | None:
    """Return MLPerf's mean power, W: the arithmetic mean of the valid samples stamped in [begin, end].

    All in the logs' own local times, as its checker compares them; ``ahead`` is how far loadgen's zone is ahead of
    the meter's where they differ. None where no sample counts.
    """
    local, watts = samples.local + ahead, samples.values["watts"]
    counted = watts[(local >= begin) & (local <= end) & np.isfinite(watts)]
    return float(counted.mean()) if len(counted) else None

"""A packed run on disk without recording one: three requests, a 1 kHz gauge with a gap, an estimated rail, a counter.

Everything follows from the arguments and one seed. The derived tables are what the analysis would write, made from
the known power of each phase, so that a test knows what must come out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from melt_stream.analysis.encode import described
from melt_stream.analysis.schemas import SCHEMAS
from melt_stream.manifest import Manifest, Stored
from melt_stream.run import Run

MS = 1_000_000
WATTS = {"baseline": 2.0, "load": 4.5, "queue": 2.2, "prefill": 8.0, "decode": 6.0, "idle": 2.1, "tail": 2.5}
GAP_NS = (9_000 * MS, 9_350 * MS)
U = 0.01


@dataclass
class Story:
    """What happened: phases in ms, tokens of each request."""

    device: str = "host"
    sensor: str = "meter.power"
    rail: str = "main"
    boundary: str = "board"
    estimated: bool = False
    powered: bool = True
    gap: tuple[int, int] | None = GAP_NS
    model: str = "SmolLM2-135M-Instruct Q4_1"
    words: tuple[str, ...] = ("The", " energy", " of", " a", " token", ",")
    phases: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)

    def energy(self, start_ns: int, stop_ns: int, watts: float) -> dict[str, Any]:
        """The shared energy columns, with what lies in the gap left out."""
        lost = max(0, min(stop_ns, self.gap[1]) - max(start_ns, self.gap[0])) if self.gap else 0
        seconds = (stop_ns - start_ns - lost) / 1e9
        if not self.powered or (stop_ns > start_ns and seconds <= 0):
            return {"quality": "missing", "flags": [], "coverage": 0.0, "seconds": 0.0}
        joules = watts * seconds
        quality = "estimated" if self.estimated else "partial" if lost else "measured"
        return {
            "joules": joules, "window_joules": joules, "net_joules": (watts - 2.0) * seconds, "seconds": seconds,
            "coverage": seconds / ((stop_ns - start_ns) / 1e9) if stop_ns > start_ns else 1.0, "quality": quality,
            "flags": [], "joules_var": (0.002 * joules) ** 2, "joules_per_clock": 0.0, "joules_lo": joules,
            "joules_hi": joules, "joules_u": float(np.hypot(U, 0.002) * joules),
        }  # fmt: skip

    @property
    def place(self) -> dict[str, Any]:
        """Which rail it was."""
        if not self.powered:
            return {"device": self.device, "estimated": False}
        return {
            "device": self.device, "sensor": self.sensor, "rail": self.rail, "boundary": self.boundary,
            "estimated": self.estimated,
        }  # fmt: skip

    def phase(
        self,
        phase: str,
        start_ms: float,
        stop_ms: float,
        request: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """Add one phase."""
        start, stop = int(start_ms * MS), int(stop_ms * MS)
        energy = self.energy(start, stop, WATTS[phase])
        known = energy.get("joules") if energy["coverage"] >= 0.99 else None
        self.phases.append({
            "run": "", "request": request, "phase": phase, "name": None, "start_ns": start, "stop_ns": stop,
            "tokens": tokens, "tokens_per_s": tokens / (stop - start) * 1e9 if tokens else None,
            "mean_w": None if known is None else known / energy["seconds"],
            "joules_per_token": known / tokens if known is not None and tokens else None, **self.place, **energy,
        })  # fmt: skip

    def request(
        self, number: int, sent_ms: float, *, prompt: int = 40, output: int = 64, itl_ms: float = 30.0
    ) -> None:
        """Add one request: queue 20 ms, prefill 10 ms a token, decode."""
        start, first = sent_ms + 20, sent_ms + 20 + 10 * prompt
        ends = first + itl_ms * np.arange(output) + np.where(np.arange(output) % 2, 2.0, 0.0)
        self.phase("queue", sent_ms, start, number)
        self.phase("prefill", start, first, number, prompt)
        self.phase("decode", first, ends[-1], number, output - 1)
        for k, stop in enumerate(ends):
            begin, end = int((ends[k - 1] if k else stop) * MS), int(stop * MS)
            self.tokens.append({
                "run": "", "request": number, "index": k, "step": k, "start_ns": begin, "stop_ns": end,
                "arrival_ns": end + MS, "count": 1, "visible": True, "context": prompt + k,
                "text": self.words[k % len(self.words)], **self.place,
                **(self.energy(begin, end, WATTS["decode"] + 0.01 * k) if k else {"quality": "measured", "flags": []}),
            })  # fmt: skip
        gaps = np.diff(ends) / 1e3
        self.requests.append({
            "run": "", "request": number, "source": "llama", "device": self.device, "name": "prompt", "model": self.model,
            "start_ns": int(sent_ms * MS), "stop_ns": int(ends[-1] * MS), "sent_ns": int(sent_ms * MS),
            "first_token_ns": int(first * MS), "prompt_tokens": prompt, "cached_tokens": 0, "processed_tokens": prompt,
            "output_tokens": output, "ttft_s": (first - sent_ms + 1) / 1e3, "itl_p50_s": float(np.quantile(gaps, 0.5)),
            "itl_p95_s": float(np.quantile(gaps, 0.95)), "prefill_tokens_per_s": 100.0,
            "decode_tokens_per_s": 1 / float(gaps.mean()), "finish": "stop", "error": None, "partial": False,
            "warmup": False, "times": "device", **self.place,
            **self.energy(int(sent_ms * MS), int(ends[-1] * MS), 6.5),
        })  # fmt: skip


def story(**changes: Any) -> Story:
    """Baseline, load, three requests (the second and third overlap, the third has the gap), tail, baseline."""
    made = Story(**changes)
    made.phase("baseline", 0, 1500)
    made.phase("load", 1500, 2600)
    made.request(1, 2800, prompt=40, output=64)
    made.request(2, 5600, prompt=60, output=64)
    made.request(3, 6900, prompt=24, output=96)
    made.phase("tail", 10150, 10500)
    made.phase("baseline", 10500, 12000)
    return made


def watts(t_ns: np.ndarray, told: Story, seed: int = 1) -> np.ndarray:
    """Power of the board at these times, with noise and a ripple for the tokens."""
    power = np.full(len(t_ns), WATTS["idle"])
    for phase in told.phases:
        inside = (t_ns >= phase["start_ns"]) & (t_ns < phase["stop_ns"])
        power[inside] = np.maximum(power[inside], WATTS.get(phase["phase"], WATTS["idle"]))
    decode = power == WATTS["decode"]
    power[decode] += 0.5 * np.sin(t_ns[decode] / (30 * MS) * 2 * np.pi)
    return power + np.random.default_rng(seed).normal(0, 0.12, len(t_ns))


def _rail(**facts: Any) -> dict[str, Any]:
    empty = dict.fromkeys((
        "parent", "window_ns", "gain", "offset", "resolution", "noise", "modulus", "nominal_volts", "full_scale",
    ))  # fmt: skip
    base = {
        "device_of": "host",
        "anchor": "end",
        "estimated": False,
        "instrument": "gauge",
        "clock_of": "host",
    }
    return {**empty, **base, "source": "", **facts}


def _stream(columns: dict[str, Any], units: dict[str, str], **facts: str) -> pa.Table:
    data = pa.table(columns)
    for name, unit in units.items():
        place = data.schema.get_field_index(name)
        data = data.set_column(place, pa.field(name, data[name].type, metadata={"unit": unit}), data[name])
    defaults = {"device": "host", "role": "", "clock": "host", "tick_ns": "1.0", "wrap": "", "period_ns": ""}
    return data.replace_schema_metadata({**defaults, **facts})


def gauge(told: Story, hz: float, seconds: float) -> pa.Table:
    """The meter: rows at ``hz`` without those in the gap."""
    t_ns = (np.arange(int(hz * seconds)) * (1e9 / hz)).astype(np.int64)
    if told.gap:
        t_ns = t_ns[(t_ns < told.gap[0]) | (t_ns >= told.gap[1])]
    power = watts(t_ns, told)
    steps = np.diff(t_ns, prepend=t_ns[0])
    steps[steps > 3e9 / hz] = 0
    columns = {
        "tick": t_ns, "rail": pa.array([told.rail] * len(t_ns)), "watts": power, "t_ns": t_ns,
        "joules": np.cumsum(power * steps / 1e9), "covered_ns": np.cumsum(steps),
    }  # fmt: skip
    units = {"watts": "W", "joules": "J", "covered_ns": "ns"}
    return _stream(columns, units, instance="meter", stream="power", period_ns=repr(1e9 / hz))


def _others(told: Story, seconds: float) -> dict[str, pa.Table]:
    rng = np.random.default_rng(2)
    slow = np.arange(0, int(seconds * 1e9), 100 * MS)
    power = watts(slow, told, 3)
    estimate = 1.5 + 0.7 * (power - 2)
    steps = np.diff(slow, prepend=slow[0])
    joules = np.cumsum(0.8 * power * steps / 1e9)
    cores = np.tile(np.arange(2), len(slow))
    busy = np.clip((np.repeat(power, 2) - 2) * 16 + rng.normal(0, 4, 2 * len(slow)) - 30 * cores, 0, 100)
    heat = 41 + np.cumsum((power - 3.5) * 0.02)
    return {
        "cpu_estimate.power": _stream(
            {"tick": slow, "watts": estimate, "t_ns": slow, "joules": np.cumsum(estimate * steps / 1e9),
             "covered_ns": np.cumsum(steps)}, {"watts": "W"}, instance="cpu_estimate", stream="power"),
        "rapl.energy": _stream(
            {"tick": slow, "energy": (joules * 1e6).astype(np.int64), "t_ns": slow, "joules": joules,
             "covered_ns": np.cumsum(steps)}, {"energy": "uJ"}, instance="rapl", stream="energy"),
        "cpu.cpu": _stream(
            {"tick": np.repeat(slow, 2), "core": pa.array([f"cpu{c}" for c in cores]), "busy": busy, "t_ns": np.repeat(slow, 2)},
            {"busy": "%"}, instance="cpu", stream="cpu"),
        "memory.memory": _stream(
            {"tick": slow, "used": 2.1e9 + 1.2e8 * (slow > 2e9), "cached": 9e8 + np.zeros(len(slow)), "t_ns": slow},
            {"used": "By", "cached": "By"}, instance="memory", stream="memory"),
        "thermal.thermal": _stream(
            {"tick": slow, "zone": pa.array(["x86_pkg_temp"] * len(slow)), "temperature": heat, "t_ns": slow},
            {"temperature": "Cel"}, instance="thermal", stream="thermal"),
    }  # fmt: skip


def _derived(run: str, told: Story, extra: dict[str, list[dict[str, Any]]]) -> dict[str, pa.Table]:
    rows: dict[str, list[dict[str, Any]]] = {
        "phases": told.phases, "requests": told.requests, "tokens": told.tokens,
        "gaps": [{"run": "", "instance": "meter", "stream": "power", "start_ns": told.gap[0], "stop_ns": told.gap[1],
                  "lost_rows": None, "reason": "unreadable: the meter did not answer"}] if told.gap else [],
        "factors": [{"run": "", "factor": "meter gain", "kind": "gain", "device": told.device, "rail": told.rail,
                     "sensor": told.sensor, "applies": "both", "u": U, "unit": "1", "shape": "normal", "source": "data sheet"}] if told.powered else [],
        "clocks": [{"run": "", "clock": "llama.server", "epoch": 1, "kind": "arrival", "readings": 64, "bound_ns": 80_000}],
        **extra,
    }  # fmt: skip
    return {
        name: pa.Table.from_pylist([{**row, "run": run} for row in rows.get(name, [])], schema)
        for name, schema in SCHEMAS.items()
    }


def write(
    folder: Path, told: Story, *, hz: float = 1000.0, seconds: float = 12.0, **extra: list[dict[str, Any]]
) -> Run:
    """Write the folder of a packed run and open it. ``extra`` are rows of derived tables, such as ``oracles``."""
    run = folder.name
    folder.mkdir(parents=True)
    streams = _others(told, seconds) | ({told.sensor: gauge(told, hz, seconds)} if told.powered else {})
    if not told.powered:
        streams = {k: v for k, v in streams.items() if k not in ("cpu_estimate.power", "rapl.energy")}
    manifest = Manifest(
        run, "packed", 0, 1_795_000_000_000_000_000, int(seconds * 1e9),
        host={"name": "bench-7", "system": "Debian GNU/Linux 12", "kernel": "Linux 6.12.3", "cpu": "AMD EPYC 9V45",
              "cpus": 2, "governors": ["performance"]},
        versions={"melt-stream": "0.1.0", "numpy": "2.4.6"}, recipe={"run": {"prompts": 3}, "collectors": {"meter": {"hz": hz}}},
        exit={"reason": "workloads ended", "error": None, "signal": None, "status": 0}, generation=1,
    )  # fmt: skip
    if told.powered:
        manifest.rails = [
            _rail(sensor_of=told.sensor, name=told.rail, boundary=told.boundary, kind="gauge", gain=U, offset=0.005,
                  resolution=0.001, estimated=told.estimated, sample_period_ns=1e9 / hz, source="data sheet, rev. 3"),
            _rail(sensor_of="rapl.energy", name="package", boundary="package", kind="counter", parent="main",
                  instrument="counter", sample_period_ns=1e8, source="unknown"),
            _rail(sensor_of="cpu_estimate.power", name="cpu", boundary="package", kind="mean", estimated=True,
                  instrument="model", sample_period_ns=1e8, source="model of CPU time"),
        ]  # fmt: skip
    for kind, tables in (("streams", streams), ("tables", _derived(run, told, extra))):
        for name, data in tables.items():
            pq.write_table(data, folder / f"{name}.parquet")
            meta = {key.decode(): value.decode() for key, value in (data.schema.metadata or {}).items()}
            getattr(manifest, kind)[name] = Stored(
                f"{name}.parquet",
                len(data),
                described(data.schema),
                meta.get("instance", ""),
                meta.get("stream", ""),
                "host",
                "",
                "host",
            )
    manifest.save(folder)
    return Run(folder)

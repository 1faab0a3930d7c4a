"""The derived tables of a run: their columns, units and what each means (DESIGN sections 4 and 5).

Times are ns since the run's start. The names, types and meanings below are what SQL users see.
"""

from __future__ import annotations

import pyarrow as pa

I64, F64, TEXT, FLAG = pa.int64(), pa.float64(), pa.utf8(), pa.bool_()
FLAGS = pa.list_(TEXT)


def _field(name: str, kind: pa.DataType, doc: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc} | ({"unit": unit} if unit else {}))


RUN = _field("run", TEXT, "id of the run")
REQUEST = _field("request", I64, "number of the request in its run; null where the row is of no request")
INTERVAL = [
    _field("start_ns", I64, "since the run's start", "ns"),
    _field("stop_ns", I64, "since the run's start", "ns"),
]
PLACE = [
    _field("device", TEXT, "what the energy was drawn by"),
    _field("sensor", TEXT, "key of the stream that measured it; null where nothing did"),
    _field("rail", TEXT, "name of the rail in that stream"),
    _field(
        "boundary", TEXT, "where in the circuit it was measured: wall, dc_in, battery, board, package, rail"
    ),
]
PHASE = [
    _field(
        "phase", TEXT, "baseline, load, warmup, queue, prefill, decode, tail, marker, window, other or idle"
    ),
    _field("name", TEXT, "the name given to the phase or request, if any"),
]
ESTIMATED = _field("estimated", FLAG, "a model stands in for a sensor")

ENERGY = [
    _field(
        "joules", F64, "the row's share of the energy measured in it; null where nothing was measured", "J"
    ),
    _field("window_joules", F64, "all energy measured from start to stop, undivided", "J"),
    _field("net_joules", F64, "joules less seconds x idle power; null where no baseline was measured", "J"),
    _field(
        "seconds", F64, "covered time, shared as joules are: joules/seconds is the power while charged", "s"
    ),
    _field("coverage", F64, "covered part of the time from start to stop, undivided", "1"),
    _field(
        "quality",
        TEXT,
        "the worst of missing > estimated > partial > interpolated > measured; null for token 0",
    ),
    _field(
        "flags",
        FLAGS,
        "saturated, stale, shared, extrapolated, unstated (accuracy not stated: u is too small)",
    ),
    _field("joules_var", F64, "variance of the independent part of the error; adds up", "J2"),
    _field(
        "joules_per_clock", F64, "change of joules when the interval moves later by dt, per dt; adds up", "W"
    ),
    _field("joules_lo", F64, "least joules over the clocks' bound; null where a clock has no bound", "J"),
    _field("joules_hi", F64, "most joules over the clocks' bound; null where a clock has no bound", "J"),
    _field("joules_u", F64, "standard uncertainty of this row alone; never to be summed: joules_u_of", "J"),
]
_POWER = [_field("mean_w", F64, "mean power while charged; null where coverage is below 0.99", "W")]

SCHEMAS: dict[str, pa.Schema] = {
    "requests": pa.schema(
        [
            RUN, REQUEST,
            _field("source", TEXT, "instance of the collector that saw it"),
            PLACE[0],
            PHASE[1],
            _field("model", TEXT, "the model that answered, as the source says"),
            *INTERVAL,
            _field("sent_ns", I64, "when the client sent it", "ns"),
            _field("first_token_ns", I64, "end of token 0, on the clock that the tokens' times come from", "ns"),
            _field("prompt_tokens", I64, "tokens of the prompt"),
            _field("cached_tokens", I64, "of these, found in the cache"),
            _field("processed_tokens", I64, "of these, processed"),
            _field("output_tokens", I64, "tokens generated, with EOS and withheld ones"),
            _field("ttft_s", F64, "from sending to the first arrival, as the client saw it", "s"),
            _field("itl_p50_s", F64, "time per token after the first, median", "s"),
            _field("itl_p95_s", F64, "time per token after the first, 95th percentile", "s"),
            _field("prefill_tokens_per_s", F64, "processed prompt tokens per second of prefill", "1/s"),
            _field("decode_tokens_per_s", F64, "tokens after the first step per second of decode", "1/s"),
            _field("finish", TEXT, "why it ended, as the source says"),
            _field("error", TEXT, "what went wrong"),
            _field("partial", FLAG, "events are missing, twice there or contradict each other"),
            _field("warmup", FLAG, "asked to warm up: its energy is the phase warmup, its tokens are not listed"),
            _field("times", TEXT, "where the tokens' times come from: device, or arrival (prefill then holds the queue)"),
            *PLACE[1:], ESTIMATED, *ENERGY,
        ]
    ),
    "phases": pa.schema(
        [
            RUN, REQUEST, *PHASE, *PLACE, *INTERVAL,
            _field("tokens", I64, "tokens processed (prefill) or generated after the first step (decode)"),
            _field("tokens_per_s", F64, "tokens per second from start to stop", "1/s"),
            *_POWER,
            _field("joules_per_token", F64, "joules / coverage / tokens; null where coverage is below 0.99", "J"),
            ESTIMATED, *ENERGY,
        ]
    ),
    "phase_rails": pa.schema(
        [
            RUN, REQUEST, *PHASE, *PLACE,
            _field("account", FLAG, "the rail is its device's total; others are cross-checks, never added"),
            *INTERVAL, *_POWER, ESTIMATED, *ENERGY,
        ]
    ),
    "together": pa.schema(
        [
            RUN, REQUEST, *PHASE,
            _field("devices", FLAGS, "those that the request involves"),
            _field("boundary", TEXT, "where all of them were measured; null where that differs, and nothing is added"),
            *INTERVAL,
            _field("tokens", I64, "tokens processed (prefill) or generated after the first step (decode)"),
            _field("mean_w", F64, "mean power of all; null where the coverage of one is below 0.99", "W"),
            _field("joules_per_token", F64, "of all; null where the coverage of one is below 0.99", "J"),
            _field("estimated", FLAG, "a model stands in for a sensor of one of them"),
            _field("joules", F64, "sum over the devices; null where one was not measured, or elsewhere", "J"),
            _field("joules_u", F64, "standard uncertainty of joules", "J"),
            _field("net_joules", F64, "sum over the devices; null where one has none", "J"),
            _field("net_joules_u", F64, "standard uncertainty of net_joules", "J"),
            _field("coverage", F64, "the least of theirs", "1"),
            _field("quality", TEXT, "the worst of theirs"),
            _field("flags", FLAGS, "all of theirs"),
        ]
    ),
    "tokens": pa.schema(
        [
            RUN, REQUEST,
            _field("index", I64, "0, 1, ... in the request"),
            _field("step", I64, "decoding step; the tokens of one step share its interval and energy equally"),
            *INTERVAL,
            _field("arrival_ns", I64, "when the client saw it, since the run's start", "ns"),
            _field("count", I64, "tokens in its step"),
            _field("visible", FLAG, "false for EOS and for text that was withheld"),
            _field("drafted", I64, "tokens drafted for its step, at its last token"),
            _field("accepted", I64, "of these, accepted, at its last token"),
            _field("context", I64, "tokens before it: prompt and output; null where the prompt's length is unknown"),
            _field("text", TEXT, "text of the step, at its last token, where it was kept"),
            *PLACE, ESTIMATED, *ENERGY,
        ]
    ),
    "clocks": pa.schema(
        [
            RUN,
            _field("clock", TEXT, "stored name"),
            _field("epoch", I64, "counts its restarts"),
            _field("segment", I64, "piece of the map: a new one where the clock was set, or strayed"),
            *INTERVAL,
            _field("tick0", I64, "the clock showed tick0 at offset_ns", "1"),
            _field("offset_ns", I64, "time since the run's start at which it showed tick0; null: cannot be placed", "ns"),
            _field("offset_lo_ns", I64, "lower bound of offset_ns; null where there is none", "ns"),
            _field("offset_hi_ns", I64, "upper bound of offset_ns; null where there is none", "ns"),
            _field("bound_ns", I64, "how far the truth may be from the map anywhere in the segment", "ns"),
            _field("latency_ns", I64, "one-way clocks: how long the fastest arrival may have taken; null: unknown", "ns"),
            _field("drift_ppm", F64, "a tick is its nominal length x (1 + drift)", "ppm"),
            _field("drift_bound_ppm", F64, "how far the drift may be off", "ppm"),
            _field("rho_ppm", F64, "declared: how far its rate strays from a line", "ppm"),
            _field("readings", I64, "number of readings used"),
            _field("kind", TEXT, "identity, exact, two_way, one_way, one_sided or none"),
            _field("residual_ns", I64, "by how much the readings contradict the map; the bound is widened by it", "ns"),
            _field("resolution_ns", F64, "width of its tick, as declared or as found in the readings", "ns"),
            _field("against", TEXT, "the clock that it was read against; bounds add up along the chain"),
        ]
    ),
    "factors": pa.schema(
        [
            RUN,
            _field("factor", TEXT, "rows of one name are one random quantity: their parts add up before squaring"),
            _field("kind", TEXT, "gain, offset, clock or model"),
            _field("device", TEXT, "what it applies to"),
            _field("sensor", TEXT, "what it applies to"),
            _field("rail", TEXT, "what it applies to"),
            _field("request", I64, "what it applies to; null: rows of every request and of none"),
            _field("applies", TEXT, "joules (and window_joules), net_joules, or both"),
            _field("u", F64, "standard uncertainty, in unit; null where it is not known"),
            _field("unit", TEXT, "what u multiplies: 1 joules, W seconds, s joules_per_clock"),
            _field("shape", TEXT, "normal, uniform or triangular"),
            _field("dof", F64, "degrees of freedom; null: infinite, or not known"),
            _field("shared_with", TEXT, "in words: what else has this error"),
            _field("source", TEXT, "where the figure comes from; unknown where it is stated nowhere"),
        ]
    ),
    "gaps": pa.schema(
        [
            RUN,
            _field("instance", TEXT, "collector"),
            _field("stream", TEXT, "its stream; rail after a slash where only one has the hole"),
            *INTERVAL,
            _field("lost_rows", I64, "null where unknown"),
            _field("reason", TEXT, "as declared, or silent: a step of more than three periods"),
        ]
    ),
    "markers": pa.schema(
        [
            RUN,
            _field("instance", TEXT, "workload that played it"),
            _field("play", I64, "counts its plays from 0"),
            *PLACE[:3],
            _field("clock", TEXT, "the rail's clock"),
            _field("epoch", I64, "of the rail's clock"),
            _field("verdict", TEXT, "agrees, early or late (with the clock's readings), alone (none), or not found"),
            _field("played_ns", I64, "centre of the code as it was played, since the run's start", "ns"),
            _field("seen_ns", I64, "centre of the rail's answer, by its clock's readings, since the run's start", "ns"),
            _field("lag_ns", I64, "seen_ns - played_ns; null where nothing ties the rail's clock to the host's", "ns"),
            _field("lag_lo_ns", I64, "least lag within the clock's bound and 4 u; null where there is none", "ns"),
            _field("lag_hi_ns", I64, "most lag within the clock's bound and 4 u; null where there is none", "ns"),
            _field("u_ns", I64, "standard uncertainty of finding it", "ns"),
            _field("rise_ns", I64, "how long power took to rise: given or fitted", "ns"),
            _field("step_w", F64, "power on less power off; null on a wire", "W"),
            _field("snr_db", F64, "step^2 over the residuals' variance, of one sample", "dB"),
            _field("confidence", F64, "its correlation over the next best"),
            _field("used", FLAG, "it became a reading (kind cause) of the rail's clock"),
        ]
    ),
    "oracles": pa.schema(
        [
            RUN, REQUEST,
            _field("quantity", TEXT, "what was reported"),
            _field("unit", TEXT, "of all three figures"),
            _field("reported", F64, "by the recorded result"),
            _field("recomputed", F64, "by the recording's own rule, from its samples"),
            _field("ours", F64, "our attribution"),
        ]
    ),
}  # fmt: skip
"""Every derived table's schema by its name."""


def empty(name: str) -> pa.Table:
    """Return the derived table ``name`` without rows."""
    return SCHEMAS[name].empty_table()


def build(name: str, columns: dict[str, object], rows: int) -> pa.Table:
    """Return the derived table ``name``; columns that are not given are null. Raises where a name is unknown."""
    schema = SCHEMAS[name]
    if unknown := columns.keys() - set(schema.names):
        raise KeyError(f"table {name!r}: expected columns {schema.names}, got {sorted(unknown)}")
    arrays = [
        pa.array(columns[f.name], f.type, from_pandas=True) if f.name in columns else pa.nulls(rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)

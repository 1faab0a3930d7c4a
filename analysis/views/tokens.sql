-- One row an output token. Token 0 has start = stop and no joules: its cost is the prefill.
-- Token k > 0 covers what passed since token k - 1; the joules of a request's tokens add up to its decode phase.
CREATE VIEW tokens AS SELECT
    run,                -- VARCHAR   id of the run
    request,            -- BIGINT    number of the request in its run; null where the row is of no request
    "index",            -- BIGINT    0, 1, ... in the request
    step,               -- BIGINT    decoding step; the tokens of one step share its interval and energy equally
    start_ns,           -- BIGINT    since the run's start [ns]
    stop_ns,            -- BIGINT    since the run's start [ns]
    arrival_ns,         -- BIGINT    when the client saw it, since the run's start [ns]
    "count",            -- BIGINT    tokens in its step
    visible,            -- BOOLEAN   false for EOS and for text that was withheld
    drafted,            -- BIGINT    tokens drafted for its step, at its last token
    accepted,           -- BIGINT    of these, accepted, at its last token
    context,            -- BIGINT    tokens before it: prompt and output; null where the prompt's length is unknown
    text,               -- VARCHAR   text of the step, at its last token, where it was kept
    device,             -- VARCHAR   what the energy was drawn by
    sensor,             -- VARCHAR   key of the stream that measured it; null where nothing did
    rail,               -- VARCHAR   name of the rail in that stream
    boundary,           -- VARCHAR   where in the circuit it was measured: wall, dc_in, battery, board, package, rail
    estimated,          -- BOOLEAN   a model stands in for a sensor
    joules,             -- DOUBLE    the row's share of the energy measured in it; null where nothing was measured [J]
    window_joules,      -- DOUBLE    all energy measured from start to stop, undivided [J]
    net_joules,         -- DOUBLE    joules less seconds x idle power; null where no baseline was measured [J]
    seconds,            -- DOUBLE    covered time, shared as joules are: joules/seconds is the power while charged [s]
    coverage,           -- DOUBLE    covered part of the time from start to stop, undivided [1]
    quality,            -- VARCHAR   the worst of missing > estimated > partial > interpolated > measured; null for token 0
    flags,              -- VARCHAR[] saturated, stale, shared, extrapolated, unstated (accuracy not stated: u is too small)
    joules_var,         -- DOUBLE    variance of the independent part of the error; adds up [J2]
    joules_per_clock,   -- DOUBLE    change of joules when the interval moves later by dt, per dt; adds up [W]
    joules_lo,          -- DOUBLE    least joules over the clocks' bound; null where a clock has no bound [J]
    joules_hi,          -- DOUBLE    most joules over the clocks' bound; null where a clock has no bound [J]
    joules_u            -- DOUBLE    standard uncertainty of this row alone; never to be summed: joules_u_of [J]
FROM {rows};

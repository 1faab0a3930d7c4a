-- One row a phase of a run, and of each request in it, with the energy of its device's account:
-- exactly one rail a device. Their joules add up to the run's total.
CREATE VIEW phases AS SELECT
    run,                -- VARCHAR   id of the run
    request,            -- BIGINT    number of the request in its run; null where the row is of no request
    phase,              -- VARCHAR   baseline, load, warmup, queue, prefill, decode, tail, marker, window, other or idle
    name,               -- VARCHAR   the name given to the phase or request, if any
    device,             -- VARCHAR   what the energy was drawn by
    sensor,             -- VARCHAR   key of the stream that measured it; null where nothing did
    rail,               -- VARCHAR   name of the rail in that stream
    boundary,           -- VARCHAR   where in the circuit it was measured: wall, dc_in, battery, board, package, rail
    start_ns,           -- BIGINT    since the run's start [ns]
    stop_ns,            -- BIGINT    since the run's start [ns]
    tokens,             -- BIGINT    tokens processed (prefill) or generated after the first step (decode)
    tokens_per_s,       -- DOUBLE    tokens per second from start to stop [1/s]
    mean_w,             -- DOUBLE    mean power while charged; null where coverage is below 0.99 [W]
    joules_per_token,   -- DOUBLE    joules / coverage / tokens; null where coverage is below 0.99 [J]
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

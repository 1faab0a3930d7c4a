-- One row a phase of a request that involves several devices: their energy together, of each one's account, where all were measured at one
-- boundary. Each device's own is a row of phases.
CREATE VIEW together AS SELECT
    run,                -- VARCHAR   id of the run
    request,            -- BIGINT    number of the request in its run; null where the row is of no request
    phase,              -- VARCHAR   baseline, load, warmup, queue, prefill, decode, tail, marker, window, other or idle
    name,               -- VARCHAR   the name given to the phase or request, if any
    devices,            -- VARCHAR[] those that the request involves
    boundary,           -- VARCHAR   where all of them were measured; null where that differs, and nothing is added
    start_ns,           -- BIGINT    since the run's start [ns]
    stop_ns,            -- BIGINT    since the run's start [ns]
    tokens,             -- BIGINT    tokens processed (prefill) or generated after the first step (decode)
    mean_w,             -- DOUBLE    mean power of all; null where the coverage of one is below 0.99 [W]
    joules_per_token,   -- DOUBLE    of all; null where the coverage of one is below 0.99 [J]
    estimated,          -- BOOLEAN   a model stands in for a sensor of one of them
    joules,             -- DOUBLE    sum over the devices; null where one was not measured, or elsewhere [J]
    joules_u,           -- DOUBLE    standard uncertainty of joules [J]
    net_joules,         -- DOUBLE    sum over the devices; null where one has none [J]
    net_joules_u,       -- DOUBLE    standard uncertainty of net_joules [J]
    coverage,           -- DOUBLE    the least of theirs [1]
    quality,            -- VARCHAR   the worst of theirs
    flags               -- VARCHAR[] all of theirs
FROM {rows};

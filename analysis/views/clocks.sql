-- How each clock was mapped onto the host's, in segments.
CREATE VIEW clocks AS SELECT
    run,               -- VARCHAR   id of the run
    clock,             -- VARCHAR   stored name
    epoch,             -- BIGINT    counts its restarts
    segment,           -- BIGINT    piece of the map: a new one where the clock was set, or strayed
    start_ns,          -- BIGINT    since the run's start [ns]
    stop_ns,           -- BIGINT    since the run's start [ns]
    tick0,             -- BIGINT    the clock showed tick0 at offset_ns [1]
    offset_ns,         -- BIGINT    time since the run's start at which it showed tick0; null: cannot be placed [ns]
    offset_lo_ns,      -- BIGINT    lower bound of offset_ns; null where there is none [ns]
    offset_hi_ns,      -- BIGINT    upper bound of offset_ns; null where there is none [ns]
    bound_ns,          -- BIGINT    how far the truth may be from the map anywhere in the segment [ns]
    latency_ns,        -- BIGINT    one-way clocks: how long the fastest arrival may have taken; null: unknown [ns]
    drift_ppm,         -- DOUBLE    a tick is its nominal length x (1 + drift) [ppm]
    drift_bound_ppm,   -- DOUBLE    how far the drift may be off [ppm]
    rho_ppm,           -- DOUBLE    declared: how far its rate strays from a line [ppm]
    readings,          -- BIGINT    number of readings used
    kind,              -- VARCHAR   identity, exact, two_way, one_way, one_sided or none
    residual_ns,       -- BIGINT    by how much the readings contradict the map; the bound is widened by it [ns]
    resolution_ns,     -- DOUBLE    width of its tick, as declared or as found in the readings [ns]
    against            -- VARCHAR   the clock that it was read against; bounds add up along the chain
FROM {rows};

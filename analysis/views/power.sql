-- One row a sample of each rail, from every power stream. Energy is in phases and tokens: it is not a sum over these.
CREATE VIEW power AS SELECT
    run,           -- VARCHAR   id of the run
    device,        -- VARCHAR   what draws the power
    sensor,        -- VARCHAR   key of the stream, <instance>.<stream>
    rail,          -- VARCHAR   name of the rail in that stream
    boundary,      -- VARCHAR   wall, dc_in, battery, board, package or rail
    t,             -- TIMESTAMP_NS  wall clock (UTC), for display only
    t_ns,          -- BIGINT    since the run's start [ns]
    watts,         -- DOUBLE    as measured, volts x amps, or delta energy / period; null for counters [W]
    amps,          -- DOUBLE    null where not measured [A]
    volts,         -- DOUBLE    null where not measured [V]
    joules,        -- DOUBLE    running: energy measured since the run's start; a step over a gap adds nothing [J]
    covered_ns     -- BIGINT    running: time since the run's start that those joules stand for [ns]
FROM {rows};

-- Holes in streams, declared and silent. Nothing is ever measured in one.
CREATE VIEW gaps AS SELECT
    run,         -- VARCHAR   id of the run
    instance,    -- VARCHAR   collector
    stream,      -- VARCHAR   its stream; rail after a slash where only one has the hole
    start_ns,    -- BIGINT    since the run's start [ns]
    stop_ns,     -- BIGINT    since the run's start [ns]
    lost_rows,   -- BIGINT    null where unknown
    reason       -- VARCHAR   as declared, or silent: a step of more than three periods
FROM {rows};

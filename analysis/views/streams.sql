-- One row a stream of a run: what there is to ask for.
CREATE VIEW streams AS SELECT
    run,           -- VARCHAR   id of the run
    instance,      -- VARCHAR   the collector's name in the recipe
    stream,        -- VARCHAR   its stream; there is a view of this name
    device,        -- VARCHAR   what it belongs to
    role,          -- VARCHAR   events, oracles, or empty
    clock,         -- VARCHAR   what its ticks count
    rows,          -- BIGINT    rows stored
    lost_rows,     -- BIGINT    rows known to be lost; null where some were and nobody knows how many
    start_ns,      -- BIGINT    first and
    stop_ns        -- BIGINT    last t_ns, since the run's start; null where there are no rows [ns]
FROM _streams;

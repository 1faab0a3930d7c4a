-- What share of a phase's time each operator of each module has. Shares of one phase add up to 1.
CREATE VIEW op_shares AS SELECT
    run,           -- VARCHAR   id of the run
    instance,      -- VARCHAR   the importer
    phase,         -- VARCHAR   warmup, prefill, decode, or the runtime's own word
    module,        -- VARCHAR   as of ops; null where nothing tells
    op,            -- VARCHAR   the operator
    graphs,        -- BIGINT    graphs that have it
    calls,         -- BIGINT    calls in all of them
    seconds,       -- DOUBLE    wall time of all calls [s]
    share          -- DOUBLE    of all operators' time in this run and phase [1]
FROM (SELECT
    run, instance, phase, module, op, count(DISTINCT graph) AS graphs, sum(count)::BIGINT AS calls, sum(duration_ns) / 1e9 AS seconds,
    sum(duration_ns) / nullif(sum(sum(duration_ns)) OVER (PARTITION BY run, instance, phase), 0) AS share
    FROM {rows} GROUP BY run, instance, phase, module, op);

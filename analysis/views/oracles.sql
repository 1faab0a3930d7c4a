-- What an imported run's own result file says, beside its rule recomputed and our attribution.
CREATE VIEW oracles AS SELECT
    run,          -- VARCHAR   id of the run
    request,      -- BIGINT    number of the request in its run; null where the row is of no request
    quantity,     -- VARCHAR   what was reported
    unit,         -- VARCHAR   of all three figures
    reported,     -- DOUBLE    by the recorded result
    recomputed,   -- DOUBLE    by the recording's own rule, from its samples
    ours          -- DOUBLE    our attribution
FROM {rows};

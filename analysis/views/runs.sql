-- One row a run, oldest first when ordered by run: ids are UTC times.
CREATE VIEW runs AS SELECT
    run,           -- VARCHAR   id of the run, and its folder's name
    name,          -- VARCHAR   what the recipe calls it
    state,         -- VARCHAR   recording, interrupted, finished or packed
    started,       -- TIMESTAMP_NS  wall clock (UTC) at the run's start, for display
    seconds,       -- DOUBLE    from start to end; null while it is recorded [s]
    exit,          -- VARCHAR   why it ended
    error,         -- VARCHAR   what went wrong, if anything did
    exit_status,   -- BIGINT    of the wrapped command, if there was one
    host,          -- VARCHAR   the recording machine's name
    cpu,           -- VARCHAR   its processor
    kernel,        -- VARCHAR   its operating system's kernel
    imported,      -- VARCHAR   the importer that made it; empty for a recorded run
    study,         -- VARCHAR   the study that it belongs to; empty where there is none
    cell,          -- VARCHAR   the study's cell that it fills; empty where there is none
    points,        -- VARCHAR   the cell's point on each axis, as JSON: points->>'threads'
    repetition,    -- BIGINT    from 1; null outside of studies
    attempt,       -- BIGINT    at this repetition, from 1
    warmup,        -- BOOLEAN   made to warm up: kept, and no part of the results
    outcome,       -- VARCHAR   done, failed, interrupted or recording
    failure,       -- VARCHAR   of a study's failed run: oom, reboot, crash, timeout, device_gone, configuration or other
    tags,          -- VARCHAR[] set with `melt-stream runs tag`
    note,          -- VARCHAR   set with `melt-stream runs note`
    path           -- VARCHAR   its folder
FROM _runs;

-- One row a cell of a study that has at least one run: what was done of it, and what became of that.
CREATE VIEW cells AS SELECT
    study,         -- VARCHAR   name of the study
    cell,          -- VARCHAR   id of the cell: a hash of its configuration
    points,        -- VARCHAR   its point on each axis, as JSON: points->>'threads'
    state,         -- VARCHAR   done, failed, recording or begun (interrupted, or not all repetitions were made yet)
    wanted,        -- BIGINT    repetitions that the study asks for, as its newest run says
    done,          -- BIGINT    finished runs, without warm-ups
    failed,        -- BIGINT    failed runs
    interrupted,   -- BIGINT    runs that were interrupted
    warmups,       -- BIGINT    finished warm-up runs
    failure,       -- VARCHAR   why the last failed run failed
    seconds,       -- DOUBLE    mean length of its finished runs, without warm-ups [s]
    last_run       -- VARCHAR   id of its newest run
FROM (
    SELECT *, CASE WHEN done >= wanted THEN 'done' WHEN last_outcome IN ('failed', 'recording') THEN last_outcome
              ELSE 'begun' END AS state
    FROM (
        SELECT study, cell, arg_max(points, run) AS points, arg_max(wanted, run) AS wanted,
               count(DISTINCT repetition) FILTER (outcome = 'done' AND NOT warmup) AS done,
               count(*) FILTER (outcome = 'failed') AS failed,
               count(*) FILTER (outcome = 'interrupted') AS interrupted,
               count(*) FILTER (outcome = 'done' AND warmup) AS warmups,
               arg_max(failure, run) FILTER (outcome = 'failed') AS failure,
               avg(seconds) FILTER (outcome = 'done' AND NOT warmup) AS seconds,
               max(run) AS last_run, arg_max(outcome, run) AS last_outcome
        FROM _runs WHERE study <> '' GROUP BY study, cell
    )
);

-- One row a request that is no warm-up: what who asked saw, what it cost, and what it took. Rows of other views, combined.
CREATE VIEW qoe AS SELECT
    run,                   -- VARCHAR  id of the run
    request,               -- BIGINT   number of the request in its run
    device,                -- VARCHAR  what the energy was drawn by
    name,                  -- VARCHAR  the prompt's name
    model,                 -- VARCHAR  the model that answered, as the source says
    prompt_tokens,         -- BIGINT   tokens of the prompt
    output_tokens,         -- BIGINT   tokens generated
    ttft_s,                -- DOUBLE   from sending to the first arrival [s]
    itl_p50_s,             -- DOUBLE   time per token after the first, median [s]
    itl_p95_s,             -- DOUBLE   95th percentile [s]
    itl_p99_s,             -- DOUBLE   99th percentile [s]
    stalls,                -- BIGINT   steps of more than 5 medians and 0.1 s
    stall_s,               -- DOUBLE   their time [s]
    prefill_tokens_per_s,  -- DOUBLE   processed prompt tokens a second [1/s]
    decode_tokens_per_s,   -- DOUBLE   tokens after the first a second [1/s]
    joules,                -- DOUBLE   energy of the request; null where not measured [J]
    joules_u,              -- DOUBLE   its standard uncertainty [J]
    boundary,              -- VARCHAR  where in the circuit it was measured
    estimated,             -- BOOLEAN  a model stands in for a sensor
    j_per_output_token,    -- DOUBLE   [J]
    j_per_input_token,     -- DOUBLE   of tokens processed [J]
    mwh,                   -- DOUBLE   the same in mWh [mWh]
    energy_delay_js,       -- DOUBLE   [J.s]
    peak_rss,              -- BIGINT   most resident memory of the watched process [By]
    rep4,                  -- DOUBLE   share of 4-token sequences that are repeats; null without text [1]
    degenerate             -- VARCHAR  error, empty, repetition (rep4 >= 0.5 of 20 or more), none; null without text
FROM (
    WITH steps AS (
        SELECT run, request, (stop_ns - start_ns) / 1e9 / count AS gap FROM tokens WHERE index > 0 AND stop_ns IS NOT NULL
    ), spread AS (
        SELECT run, request, quantile_cont(gap, 0.5) AS p50, quantile_cont(gap, 0.95) AS p95, quantile_cont(gap, 0.99) AS p99
        FROM steps GROUP BY run, request
    ), stalled AS (
        SELECT run, request, count(*) AS stalls, sum(gap) AS stall_s
        FROM steps JOIN spread USING (run, request) WHERE gap > greatest(5 * p50, 0.1) GROUP BY run, request
    ), pieces AS (
        SELECT run, request, text, lead(text, 1) OVER w AS b, lead(text, 2) OVER w AS c, lead(text, 3) OVER w AS d
        FROM tokens WINDOW w AS (PARTITION BY run, request ORDER BY index)
    ), repeated AS (
        SELECT run, request, 1 - count(DISTINCT (text, b, c, d)) / count(*) AS rep4, count(*) AS grams
        FROM pieces WHERE text IS NOT NULL AND d IS NOT NULL GROUP BY run, request
    ), spoken AS (
        SELECT run, request, string_agg(text, '' ORDER BY index) AS answer FROM tokens WHERE text IS NOT NULL GROUP BY run, request
    ), resident AS (
        SELECT q.run, q.request, max(p.rss) AS rss FROM requests q
        JOIN _process p ON p.run = q.run AND p.device = q.device AND p.t_ns BETWEEN q.start_ns AND q.stop_ns GROUP BY q.run, q.request
    )
    SELECT
        q.run,
        q.request,
        q.device,
        q.name,
        q.model,
        q.prompt_tokens,
        q.output_tokens,
        q.ttft_s,
        s.p50 AS itl_p50_s,
        s.p95 AS itl_p95_s,
        s.p99 AS itl_p99_s,
        CASE WHEN s.p50 IS NOT NULL THEN coalesce(h.stalls, 0) END AS stalls,
        CASE WHEN s.p50 IS NOT NULL THEN coalesce(h.stall_s, 0) END AS stall_s,
        q.prefill_tokens_per_s,
        q.decode_tokens_per_s,
        q.joules,
        q.joules_u,
        q.boundary,
        q.estimated,
        CASE WHEN q.coverage >= 0.99 THEN q.joules / q.coverage / nullif(q.output_tokens, 0) END AS j_per_output_token,
        CASE WHEN q.coverage >= 0.99 THEN q.joules / q.coverage / nullif(q.processed_tokens, 0) END AS j_per_input_token,
        CASE WHEN q.coverage >= 0.99 THEN q.joules / q.coverage / 3.6 END AS mwh,
        CASE WHEN q.coverage >= 0.99 THEN q.joules / q.coverage * (q.stop_ns - q.start_ns) / 1e9 END AS energy_delay_js,
        r.rss AS peak_rss,
        g.rep4,
        CASE
            WHEN q.error IS NOT NULL THEN 'error'
            WHEN q.output_tokens = 0 OR (a.answer IS NOT NULL AND trim(a.answer) = '') THEN 'empty'
            WHEN g.grams >= 20 AND g.rep4 >= 0.5 THEN 'repetition'
            WHEN a.answer IS NULL THEN NULL
            ELSE 'none'
        END AS degenerate
    FROM requests q
    LEFT JOIN spread s USING (run, request)
    LEFT JOIN stalled h USING (run, request)
    LEFT JOIN repeated g USING (run, request)
    LEFT JOIN spoken a USING (run, request)
    LEFT JOIN resident r USING (run, request)
    WHERE q.request IS NOT NULL AND NOT coalesce(q.warmup, false)
);

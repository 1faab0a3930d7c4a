-- One row an inference event, from every source of them; requests, phases and tokens are made of these.
CREATE VIEW events AS SELECT
    run,              -- VARCHAR   id of the run
    instance,         -- VARCHAR   the collector that saw it
    stream,           -- VARCHAR   its stream: one for each clock
    device,           -- VARCHAR   where it happened
    clock,            -- VARCHAR   what its time was taken with
    t,                -- TIMESTAMP_NS  wall clock (UTC), for display only
    t_ns,             -- BIGINT    since the run's start, by the clock's map [ns]
    kind,             -- VARCHAR   phase_start, request_sent, prefill_start, token, request_end, ...
    request,          -- BIGINT    number of the request in its run
    name,             -- VARCHAR   of a phase or a request
    "index",          -- BIGINT    of a token event's last token, from 0
    "count",          -- BIGINT    tokens in this event
    visible,          -- BOOLEAN   false for EOS and for text that was withheld
    drafted,          -- BIGINT    tokens drafted for this step
    accepted,         -- BIGINT    of these, accepted
    prompt_total,     -- BIGINT    tokens of the prompt
    prompt_cached,    -- BIGINT    of these, found in the cache
    prompt_processed, -- BIGINT    of these, processed so far
    arrival_ns,       -- BIGINT    when the client saw it, since the run's start [ns]
    text,             -- VARCHAR   where it was kept
    detail            -- VARCHAR   JSON, as the source says it
FROM {rows};

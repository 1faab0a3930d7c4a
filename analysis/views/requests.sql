-- One row a request: what was asked, what came back, how fast, and its energy from start to stop.
CREATE VIEW requests AS SELECT
    run,                    -- VARCHAR   id of the run
    request,                -- BIGINT    number of the request in its run; null where the row is of no request
    source,                 -- VARCHAR   instance of the collector that saw it
    device,                 -- VARCHAR   what the energy was drawn by
    name,                   -- VARCHAR   the name given to the phase or request, if any
    model,                  -- VARCHAR   the model that answered, as the source says
    start_ns,               -- BIGINT    since the run's start [ns]
    stop_ns,                -- BIGINT    since the run's start [ns]
    sent_ns,                -- BIGINT    when the client sent it [ns]
    first_token_ns,         -- BIGINT    end of token 0, on the clock that the tokens' times come from [ns]
    prompt_tokens,          -- BIGINT    tokens of the prompt
    cached_tokens,          -- BIGINT    of these, found in the cache
    processed_tokens,       -- BIGINT    of these, processed
    output_tokens,          -- BIGINT    tokens generated, with EOS and withheld ones
    ttft_s,                 -- DOUBLE    from sending to the first arrival, as the client saw it [s]
    itl_p50_s,              -- DOUBLE    time per token after the first, median [s]
    itl_p95_s,              -- DOUBLE    time per token after the first, 95th percentile [s]
    prefill_tokens_per_s,   -- DOUBLE    processed prompt tokens per second of prefill [1/s]
    decode_tokens_per_s,    -- DOUBLE    tokens after the first step per second of decode [1/s]
    finish,                 -- VARCHAR   why it ended, as the source says
    error,                  -- VARCHAR   what went wrong
    partial,                -- BOOLEAN   events are missing, twice there or contradict each other
    warmup,                 -- BOOLEAN   asked to warm up: its energy is the phase warmup, its tokens are not listed
    times,                  -- VARCHAR   where the tokens' times come from: device, or arrival (prefill then holds the queue)
    sensor,                 -- VARCHAR   key of the stream that measured it; null where nothing did
    rail,                   -- VARCHAR   name of the rail in that stream
    boundary,               -- VARCHAR   where in the circuit it was measured: wall, dc_in, battery, board, package, rail
    estimated,              -- BOOLEAN   a model stands in for a sensor
    joules,                 -- DOUBLE    the row's share of the energy measured in it; null where nothing was measured [J]
    window_joules,          -- DOUBLE    all energy measured from start to stop, undivided [J]
    net_joules,             -- DOUBLE    joules less seconds x idle power; null where no baseline was measured [J]
    seconds,                -- DOUBLE    covered time, shared as joules are: joules/seconds is the power while charged [s]
    coverage,               -- DOUBLE    covered part of the time from start to stop, undivided [1]
    quality,                -- VARCHAR   the worst of missing > estimated > partial > interpolated > measured; null for token 0
    flags,                  -- VARCHAR[] saturated, stale, shared, extrapolated, unstated (accuracy not stated: u is too small)
    joules_var,             -- DOUBLE    variance of the independent part of the error; adds up [J2]
    joules_per_clock,       -- DOUBLE    change of joules when the interval moves later by dt, per dt; adds up [W]
    joules_lo,              -- DOUBLE    least joules over the clocks' bound; null where a clock has no bound [J]
    joules_hi,              -- DOUBLE    most joules over the clocks' bound; null where a clock has no bound [J]
    joules_u                -- DOUBLE    standard uncertainty of this row alone; never to be summed: joules_u_of [J]
FROM {rows};

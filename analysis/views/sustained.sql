-- One row a run and device that answered requests: how speed, power and heat went over time. Rows of other views, combined.
CREATE VIEW sustained AS SELECT
    run,                   -- VARCHAR  id of the run
    device,                -- VARCHAR  what answered
    requests,              -- BIGINT   answers with two tokens or more, warm-ups left out
    seconds,               -- DOUBLE   from the first to the end of the last [s]
    tokens_per_s,          -- DOUBLE   decode speed, mean over requests [1/s]
    first_tokens_per_s,    -- DOUBLE   of the first request [1/s]
    last_tokens_per_s,     -- DOUBLE   of the last [1/s]
    tokens_per_s_per_min,  -- DOUBLE   least-squares line through all requests; null for a single one [1/s/min]
    tokens_per_s_r2,       -- DOUBLE   share of the variance that the line explains [1]
    decode_w,              -- DOUBLE   power while decoding, mean over requests [W]
    decode_w_per_min,      -- DOUBLE   least-squares line [W/min]
    start_celsius,         -- DOUBLE   hottest zone at the first request; null where no temperature was recorded [Cel]
    peak_celsius,          -- DOUBLE   hottest zone at any time between [Cel]
    stop_celsius,          -- DOUBLE   hottest zone at the end [Cel]
    celsius_per_min,       -- DOUBLE   least-squares line [Cel/min]
    throttle_events        -- BIGINT   times that a cooling device began to hold something back; null where none was watched
FROM (
    WITH speed AS (
        SELECT
            run, device, count(*) AS requests, avg(decode_tokens_per_s) AS mean,
            regr_slope(decode_tokens_per_s, start_ns / 60e9) AS slope, regr_r2(decode_tokens_per_s, start_ns / 60e9) AS r2,
            arg_min(decode_tokens_per_s, start_ns) AS first, arg_max(decode_tokens_per_s, start_ns) AS last,
            min(start_ns) AS began, max(stop_ns) AS ended
        FROM requests WHERE request IS NOT NULL AND NOT coalesce(warmup, false) AND decode_tokens_per_s IS NOT NULL GROUP BY run, device
    ), hottest AS (
        SELECT run, device, t_ns, max(celsius) AS celsius FROM _thermal WHERE celsius IS NOT NULL AND t_ns IS NOT NULL GROUP BY run, device, t_ns
    ), heat AS (
        SELECT
            s.run, s.device, arg_min(h.celsius, h.t_ns) AS start, max(h.celsius) AS peak, arg_max(h.celsius, h.t_ns) AS stop,
            regr_slope(h.celsius, h.t_ns / 60e9) AS slope
        FROM speed s JOIN hottest h ON h.run = s.run AND h.device = s.device AND h.t_ns BETWEEN s.began AND s.ended GROUP BY s.run, s.device
    ), states AS (
        SELECT run, device, t_ns, state, lag(state) OVER (PARTITION BY run, device, cooling ORDER BY t_ns) AS before FROM _throttle
    ), held AS (
        SELECT s.run, s.device, count(*) FILTER (h.state > 0 AND h.before = 0) AS begun
        FROM speed s JOIN states h ON h.run = s.run AND h.device = s.device AND h.t_ns BETWEEN s.began AND s.ended GROUP BY s.run, s.device
    ), drawn AS (
        SELECT
            s.run, s.device, regr_slope(p.mean_w, p.start_ns / 60e9) AS slope, avg(p.mean_w) AS mean
        FROM speed s JOIN phases p ON p.run = s.run AND p.device = s.device AND p.phase = 'decode' AND p.mean_w IS NOT NULL GROUP BY s.run, s.device
    )
    SELECT
        run,
        device,
        requests,
        (ended - began) / 1e9 AS seconds,
        s.mean AS tokens_per_s,
        s.first AS first_tokens_per_s,
        s.last AS last_tokens_per_s,
        s.slope AS tokens_per_s_per_min,
        s.r2 AS tokens_per_s_r2,
        d.mean AS decode_w,
        d.slope AS decode_w_per_min,
        h.start AS start_celsius,
        h.peak AS peak_celsius,
        h.stop AS stop_celsius,
        h.slope AS celsius_per_min,
        t.begun AS throttle_events
    FROM speed s LEFT JOIN heat h USING (run, device) LEFT JOIN drawn d USING (run, device) LEFT JOIN held t USING (run, device)
);

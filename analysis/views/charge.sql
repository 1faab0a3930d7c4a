-- One row a phase: the charge that its account's rail delivered, in mAh, for batteries. Rows of other views, combined.
CREATE VIEW charge AS SELECT
    run,        -- VARCHAR  id of the run
    request,    -- BIGINT   number of the request in its run; null where the row is of no request
    phase,      -- VARCHAR  as in the view phases
    device,     -- VARCHAR  what the energy was drawn by
    sensor,     -- VARCHAR  key of the stream that measured it
    rail,       -- VARCHAR  name of the rail in that stream
    boundary,   -- VARCHAR  where in the circuit it was measured
    volts,      -- DOUBLE   mean voltage over the samples of the phase; the V by which joules became charge where no current was measured [V]
    mah,        -- DOUBLE   charge: mean measured current x covered time, else joules / volts; null where neither is known or coverage is below 0.99 [mA.h]
    how         -- VARCHAR  current, or energy: what mah is made of
FROM (
    WITH drawn AS (
        SELECT
            p.run, p.request, p.phase, p.device, p.sensor, p.rail, p.start_ns, avg(w.volts) AS volts, avg(w.amps) AS amps,
            count(w.amps) = count(*) AS whole
        FROM phases p
        JOIN power w ON w.run = p.run AND w.sensor = p.sensor AND w.rail = p.rail AND w.t_ns >= p.start_ns AND w.t_ns < p.stop_ns
        GROUP BY ALL
    )
    SELECT
        p.run, p.request, p.phase, p.device, p.sensor, p.rail, p.boundary, d.volts,
        CASE WHEN p.coverage >= 0.99 AND d.whole THEN d.amps * p.seconds / p.coverage / 3.6
             WHEN p.coverage >= 0.99 THEN p.joules / p.coverage / nullif(d.volts, 0) / 3.6 END AS mah,
        CASE WHEN p.coverage >= 0.99 AND d.whole THEN 'current' WHEN p.coverage >= 0.99 AND d.volts > 0 THEN 'energy' END AS how
    FROM phases p
    JOIN drawn d ON d.run = p.run AND d.request IS NOT DISTINCT FROM p.request AND d.phase = p.phase AND d.device = p.device AND d.start_ns = p.start_ns
    WHERE p.sensor IS NOT NULL
);

-- Where each marker that was played was found in each rail of its device, and on its wires, held against the rail's clock.
CREATE VIEW markers AS SELECT
    run,        -- VARCHAR   id of the run
    instance,   -- VARCHAR   workload that played it
    play,       -- BIGINT    counts its plays from 0
    device,     -- VARCHAR   what the energy was drawn by
    sensor,     -- VARCHAR   key of the stream that measured it; null where nothing did
    rail,       -- VARCHAR   name of the rail in that stream
    clock,      -- VARCHAR   the rail's clock
    epoch,      -- BIGINT    of the rail's clock
    verdict,    -- VARCHAR   agrees, early or late (with the clock's readings), alone (none), or not found
    played_ns,  -- BIGINT    centre of the code as it was played, since the run's start [ns]
    seen_ns,    -- BIGINT    centre of the rail's answer, by its clock's readings, since the run's start [ns]
    lag_ns,     -- BIGINT    seen_ns - played_ns; null where nothing ties the rail's clock to the host's [ns]
    lag_lo_ns,  -- BIGINT    least lag within the clock's bound and 4 u; null where there is none [ns]
    lag_hi_ns,  -- BIGINT    most lag within the clock's bound and 4 u; null where there is none [ns]
    u_ns,       -- BIGINT    standard uncertainty of finding it [ns]
    rise_ns,    -- BIGINT    how long power took to rise: given or fitted [ns]
    step_w,     -- DOUBLE    power on less power off; null on a wire [W]
    snr_db,     -- DOUBLE    step^2 over the residuals' variance, of one sample [dB]
    confidence, -- DOUBLE    its correlation over the next best
    used        -- BOOLEAN   it became a reading (kind cause) of the rail's clock
FROM {rows};

-- One row a rail: what a power stream measures, where, and how well.
CREATE VIEW rails AS SELECT
    run,           -- VARCHAR   id of the run
    device,        -- VARCHAR   what draws the power
    sensor,        -- VARCHAR   key of the stream, <instance>.<stream>
    rail,          -- VARCHAR   name of the rail in that stream
    boundary,      -- VARCHAR   wall, dc_in, battery, board, package or rail
    parent,        -- VARCHAR   the rail it is nested in
    kind,          -- VARCHAR   gauge, mean, delta or counter
    period_ns,     -- DOUBLE    between samples; null where irregular [ns]
    window_ns,     -- DOUBLE    of a mean; null where it is the time since the last sample [ns]
    anchor,        -- VARCHAR   where in its window a sample is stamped: start, centre or end
    clock,         -- VARCHAR   what its ticks count
    gain,          -- DOUBLE    standard uncertainty of the gain, relative; null where unknown
    "offset",      -- DOUBLE    standard uncertainty of the zero [W]
    resolution,    -- DOUBLE    smallest step [W; J for delta and counter]
    noise,         -- DOUBLE    standard deviation of one sample [W; J for delta]
    modulus,       -- DOUBLE    count at which a counter wraps, in the column's unit
    nominal_volts, -- DOUBLE    turns coulombs into joules where no voltage is measured [V]
    full_scale,    -- DOUBLE    reading from which on a sample is saturated [W]
    estimated,     -- BOOLEAN   a model stands in for a sensor
    instrument,    -- VARCHAR   meter, counter, gauge or model
    source         -- VARCHAR   where the accuracy figures come from
FROM _rails;

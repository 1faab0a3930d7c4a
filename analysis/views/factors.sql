-- What the errors of many rows have in common; joules_u_of() puts them together.
CREATE VIEW factors AS SELECT
    run,           -- VARCHAR   id of the run
    factor,        -- VARCHAR   rows of one name are one random quantity: their parts add up before squaring
    kind,          -- VARCHAR   gain, offset, clock or model
    device,        -- VARCHAR   what it applies to
    sensor,        -- VARCHAR   what it applies to
    rail,          -- VARCHAR   what it applies to
    request,       -- BIGINT    what it applies to; null: rows of every request and of none
    applies,       -- VARCHAR   joules (and window_joules), net_joules, or both
    u,             -- DOUBLE    standard uncertainty, in unit; null where it is not known
    unit,          -- VARCHAR   what u multiplies: 1 joules, W seconds, s joules_per_clock
    shape,         -- VARCHAR   normal, uniform or triangular
    dof,           -- DOUBLE    degrees of freedom; null: infinite, or not known
    shared_with,   -- VARCHAR   in words: what else has this error
    source         -- VARCHAR   where the figure comes from; unknown where it is stated nowhere
FROM {rows};

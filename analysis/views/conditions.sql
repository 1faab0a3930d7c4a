-- One row a condition: what the recipe says of a run's surroundings, in the names that it gave.
CREATE VIEW conditions AS SELECT
    run,           -- VARCHAR   id of the run
    device,        -- VARCHAR   of which device it was said; null: of the whole run
    name,          -- VARCHAR   as in the recipe, with the unit at its end: ambient_c
    value,         -- DOUBLE    where it is a number, in that unit
    text           -- VARCHAR   as it was written
FROM _conditions;

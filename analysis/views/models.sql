-- One row for each instance of a run that ran a model of the zoo; of other models the facts of the run tell.
CREATE VIEW models AS SELECT
    run,              -- VARCHAR   the run's id
    instance,         -- VARCHAR   the workload or collector that ran it
    model,            -- VARCHAR   its name in the zoo
    variant,          -- VARCHAR   original, or what was made of it, such as Q4_0
    quantisation,     -- VARCHAR   as the file says
    bits_per_weight,  -- DOUBLE    of all its tensors [bit]
    parameters,       -- BIGINT    elements of all its tensors
    weight_bytes,     -- BIGINT    of all its tensors [B]
    bytes,            -- BIGINT    of its files [B]
    architecture,     -- VARCHAR   as the file says
    format,           -- VARCHAR   gguf, hf, or what an external recipe calls it
    sha256,           -- VARCHAR   of its file
    tool,             -- VARCHAR   what made it
    tool_version,     -- VARCHAR   of that
    loss,             -- VARCHAR   what was lost before: made of what was quantised already
    recipe            -- VARCHAR   all of it, as JSON: recipe->>'$.inputs'
FROM _models;

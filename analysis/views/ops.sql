-- One row a node of each graph that a runtime computed, as an importer of per-operator logs found it. Observing slows: for shares.
CREATE VIEW ops AS SELECT
    run,           -- VARCHAR   id of the run
    instance,      -- VARCHAR   the importer
    device,        -- VARCHAR   what it ran on
    t_ns,          -- BIGINT    the durations before it, added up: no log has times [ns]
    graph,         -- BIGINT    which graph, or report, from 0
    node,          -- BIGINT    which node of it, in order of computing, from 0
    phase,         -- VARCHAR   warmup, prefill, decode, or the runtime's own word
    function,      -- VARCHAR   the runtime's function that the report is of, if any
    op,            -- VARCHAR   the operator, without what its name has of fusions and numbers
    name,          -- VARCHAR   the node's or kernel's own name, if it has one
    module,        -- VARCHAR   embedding, norm, attention, mlp, head, sampling, runtime; null where nothing tells
    layer,         -- BIGINT    which layer of the model, from 0, if that is told
    shapes,        -- VARCHAR   of the result (llama.cpp), or of the arguments (TVM)
    backend,       -- VARCHAR   what it ran on
    count,         -- BIGINT    calls that the row stands for
    duration_ns,   -- BIGINT    wall time of all these calls [ns]
    cpu_ns         -- BIGINT    time of all threads; null where not told [ns]
FROM {rows};

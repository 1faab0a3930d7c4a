-- Every other stream name has a view: one row a sample, from all instances and runs.
-- run, instance and device say whose row it is; t (TIMESTAMP_NS) is the wall clock (UTC), for display only;
-- t_ns (BIGINT) counts from the run's start; then come the stream's own columns as its collector documents them.
-- Where runs differ, a column that a run lacks is null there, and a unit is converted to the newest run's.
CREATE VIEW {name} AS SELECT * FROM {rows};

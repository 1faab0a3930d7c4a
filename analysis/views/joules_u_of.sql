-- joules_u_of(row): the standard uncertainty of a sum of joules [J].
--
--     SELECT phase, sum(joules), joules_u_of(p) FROM phases p GROUP BY phase
--     SELECT joules_u_of(t) FROM tokens t WHERE request = 3 AND "index" % 2 = 0
--
-- An aggregate over rows of phases, phase_rails, tokens or requests, given by the name of the table in FROM. It is
-- sqrt(sum joules_var + the sum over factors of (u x sum of what it multiplies)^2): gains multiply joules, offsets
-- seconds and clocks joules_per_clock, each summed over the rows of its sensor, rail and request before squaring.
-- The second form takes the columns, where they have other names. Null where no row has joules.
CREATE MACRO joules_u_of
    (r) AS _joules_u_of(list(struct_pack(
        run := r.run, device := r.device, sensor := r.sensor, rail := r.rail, request := r.request, joules := r.joules,
        seconds := r.seconds, joules_per_clock := r.joules_per_clock, joules_var := r.joules_var))),
    (run, device, sensor, rail, request, joules, seconds, joules_per_clock, joules_var) AS
    _joules_u_of(list(struct_pack(
        run := run, device := device, sensor := sensor, rail := rail, request := request, joules := joules,
        seconds := seconds, joules_per_clock := joules_per_clock, joules_var := joules_var)));
